"""What a request may hold is checked by what it says of itself, before anything is decoded."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time

import pytest

from in_process import LIMITS, SERVED, send
from kovar.errors import RequestError
from kovar.serving.api import create_api
from kovar.serving.body_room import BodyRoom
from kovar.serving.exchange import Exchange
from kovar.serving.protocol.bounds import MAX_TENSORS, Bounds
from kovar.serving.protocol.infer_json import read_inference
from kovar.serving.reading import LOOP_BYTES, read_content
from kovar.serving.rpc.infer import read_inference as read_message
from kovar.serving.rpc.messages import message
from kovar.serving.served_model import served_model
from kovar.serving.spec import RequestLimits

BOUNDS = Bounds(RequestLimits(max_inputs=4), max_length=8)


def binary(shape, raw, datatype="BYTES"):
    tensor = {
        "name": "text",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    return read_inference(head + raw, str(len(head)), BOUNDS)


def called(shape, datatype="BYTES", **contents):
    request = message("ModelInferRequest")
    tensor = request.inputs.add(name="text", datatype=datatype, shape=shape)
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return read_message(request, BOUNDS)


def refusal(read, *args, **options) -> tuple[str, str | None]:
    with pytest.raises(RequestError) as refused:
        read(*args, **options)
    return refused.value.code, refused.value.field


@pytest.mark.parametrize(
    ("shape", "datatype", "expected"),
    [
        ([1_000], "BYTES", ("too_many_inputs", "inputs[0].data")),
        ([1_000, 1], "BYTES", ("too_many_inputs", "inputs[0].data")),
        ([2], "BYTES", ("invalid_tensor", "inputs[0].data")),
        ([5, 8], "INT32", ("too_many_inputs", "inputs[0].shape[0]")),
        ([1, 1_000], "INT32", ("invalid_tensor", "inputs[0].shape[1]")),
        ([1, 8], "INT32", ("invalid_tensor", "inputs[0].data")),
    ],
)
def test_bytes_that_hold_more_than_is_allowed_or_said_are_not_decoded(shape, datatype, expected):
    assert refusal(binary, shape, b"\0\0\0\0" * 1_000, datatype) == expected


@pytest.mark.parametrize("shape", [[], [2, 3], [-1], [1, 1, 1]])
def test_a_tensor_of_a_shape_that_no_input_has_is_not_decoded(shape):
    (tensor,) = binary(shape, b"\xff" * 1_000).inputs
    assert tensor.data == []


def test_a_message_may_hold_no_more_than_a_body():
    assert refusal(called, [1_000], bytes_contents=[b""] * 1_000)[0] == "too_many_inputs"
    assert refusal(called, [1, 9], "INT64", int64_contents=[1] * 9)[0] == "invalid_tensor"
    (tensor,) = called([2], bytes_contents=[b"a"] * 1_000).inputs
    assert len(tensor.data) == 3  # one more than the shape says, so it is refused later


def test_more_tensors_than_a_model_has_are_refused_at_once():
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    body = json.dumps({"inputs": [tensor] * (MAX_TENSORS + 1)}).encode()
    assert refusal(read_inference, body, None, BOUNDS) == ("too_long", "inputs")
    request = message("ModelInferRequest")
    for _ in range(MAX_TENSORS + 1):
        request.outputs.add(name="label")
    assert refusal(read_message, request, BOUNDS) == ("too_long", "outputs")


def test_a_long_list_is_refused_before_its_items_are_looked_at(ask):
    response = ask("POST", "/v1/predict", json={"inputs": [{}] * 20})
    assert response.json()["code"] == "too_many_inputs"
    response = ask("POST", "/v1/embeddings", json={"input": [[]] * 20})
    assert response.json()["code"] == "too_many_inputs"
    response = ask("POST", "/v1/embeddings", json={"input": [1] * 20})
    assert (response.json()["code"], response.json()["field"]) == ("too_many_tokens", "input[0]")


def thread_of(content: bytes) -> str:
    return threading.current_thread().name


def test_a_large_body_is_read_beside_the_event_loop():
    async def names() -> list[str]:
        deadline = time.monotonic() + 10
        sizes = (LOOP_BYTES, LOOP_BYTES + 1)
        return [await read_content(bytes(size), thread_of, deadline=deadline) for size in sizes]

    small, large = asyncio.run(names())
    assert small == threading.current_thread().name
    assert large.startswith("kovar-reader")
    assert gc.isenabled()


def test_a_body_that_waits_until_its_deadline_is_never_read():
    seen: list[bytes] = []
    held = threading.Event()

    async def ask_twice() -> str:
        deadline = time.monotonic() + 10
        first = asyncio.create_task(
            read_content(bytes(LOOP_BYTES + 1), lambda _: held.wait(10), deadline=deadline)
        )
        await asyncio.sleep(0)
        try:
            await read_content(bytes(LOOP_BYTES + 1), seen.append, deadline=time.monotonic())
        except RequestError as refused:
            return refused.code
        finally:
            held.set()
            await first
        return "read"

    assert asyncio.run(ask_twice()) == "deadline_exceeded"
    assert seen == []


def test_bodies_under_way_share_a_bounded_memory_and_give_it_back():
    room, first, second = BodyRoom(100), Exchange(), Exchange()
    room.take(first, 60)
    room.take(second, 30)
    assert refusal(room.take, second, 20) == ("bodies_full", None)
    room.give_back(first)
    room.take(second, 20)
    assert (first.held_bytes, second.held_bytes) == (0, 50)


def test_there_is_always_room_for_two_of_the_largest_bodies():
    room = BodyRoom.of(RequestLimits(max_body_bytes=1 << 30))
    for _ in range(2):
        room.take(Exchange(), 1 << 30)


def test_a_request_gives_its_memory_back_however_it_ends(runner, runtime):
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    for body in ({"inputs": ["good"]}, {"inputs": []}, {"inputs": ["x" * 3_000]}):
        asyncio.run(send(app, "POST", "/v1/predict", json=body))
    room = app._app._room
    assert room._left == room._max_bytes
