"""The Open Inference Protocol v2 over REST."""

from __future__ import annotations

import pytest

INFER = "/v2/models/movie-sentiment/infer"


def tensor(**changes):
    return {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good", "bad"]} | changes


def body(*tensors, **fields):
    return {"inputs": list(tensors) or [tensor()]} | fields


def test_texts_come_back_as_labels_and_scores(ask):
    response = ask("POST", INFER, json=body(id="call-1"))
    assert response.status_code == 200
    assert response.json() == {
        "id": "call-1",
        "model_name": "movie-sentiment",
        "model_version": "3",
        "parameters": {"digest": "ab" * 32},
        "outputs": [
            {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["positive", "negative"]},
            {
                "name": "scores",
                "shape": [2, 2],
                "datatype": "FP32",
                "data": [0.25, 0.75, 0.75, 0.25],
            },
        ],
    }


@pytest.mark.parametrize("data", [["good", "bad"], [["good"], ["bad"]]])
def test_a_column_of_texts_may_be_flat_or_nested(ask, data):
    response = ask("POST", INFER, json=body(tensor(shape=[2, 1], data=data)))
    assert response.json()["outputs"][0]["data"] == ["positive", "negative"]


@pytest.mark.parametrize("version", ["3", "ab" * 32])
def test_the_path_may_name_the_version_by_number_or_digest(ask, version):
    path = f"/v2/models/movie-sentiment/versions/{version}"
    assert ask("POST", f"{path}/infer", json=body()).status_code == 200
    assert ask("GET", path).json()["versions"] == ["3"]
    ready = {"name": "movie-sentiment", "ready": True, "loaded": True}
    assert ask("GET", f"{path}/ready").json() == ready


def test_only_the_outputs_that_were_asked_for_are_sent(ask):
    response = ask("POST", INFER, json=body(outputs=[{"name": "scores"}]))
    assert [output["name"] for output in response.json()["outputs"]] == ["scores"]


REFUSALS = {
    "another name": (body(tensor(name="texts")), 400, "inputs[0].name"),
    "another datatype": (body(tensor(datatype="INT64")), 400, "inputs[0].datatype"),
    "a square": (body(tensor(shape=[1, 2])), 400, "inputs[0].shape"),
    "a scalar": (body(tensor(shape=[])), 400, "inputs[0].shape"),
    "a negative size": (body(tensor(shape=[-1])), 400, "inputs[0].shape"),
    "fewer texts than the shape says": (body(tensor(shape=[3])), 400, "inputs[0].data"),
    "numbers": (body(tensor(data=[1, 2])), 400, "inputs[0].data"),
    "nested in a flat shape": (body(tensor(data=[["a"], ["b"]])), 400, "inputs[0].data"),
    "two tensors": (body(tensor(), tensor()), 400, "inputs"),
    "no tensor": ({"inputs": []}, 400, "inputs"),
    "binary data": (
        body(tensor(parameters={"binary_data_size": 9})),
        400,
        "inputs[0].parameters.binary_data_size",
    ),
    "an unknown output": (body(outputs=[{"name": "logits"}]), 400, "outputs[0].name"),
    "no texts": (body(tensor(shape=[0], data=[])), 422, "inputs[0].data"),
    "an empty text": (body(tensor(data=["good", " "])), 422, "inputs[0].data[1]"),
    "a long text": (body(tensor(data=["good", "x" * 101])), 422, "inputs[0].data[1]"),
    "an unknown field": (body(tensor(dtype="BYTES")), 422, "inputs[0].dtype"),
    "a shape of text": (body(tensor(shape=["2"])), 422, "inputs[0].shape[0]"),
}


@pytest.mark.parametrize("mistake", REFUSALS)
def test_a_mistake_is_refused_with_its_place(ask, mistake):
    request, status, field = REFUSALS[mistake]
    response = ask("POST", INFER, json=request)
    assert (response.status_code, response.json()["field"]) == (status, field)


@pytest.mark.parametrize("end", ["", "/ready", "/versions/3", "/versions/3/ready"])
def test_an_unknown_model_is_not_found(ask, end):
    response = ask("GET", f"/v2/models/other{end}")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_an_unknown_model_is_not_found_whatever_the_body(ask):
    response = ask("POST", "/v2/models/other/infer", content=b"not JSON")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_an_unknown_version_is_not_found(ask):
    response = ask("POST", "/v2/models/movie-sentiment/versions/4/infer", json=body())
    assert (response.status_code, response.json()["code"]) == (404, "version_not_found")


def test_metadata_says_what_goes_in_and_out_and_the_order_of_the_labels(ask):
    metadata = ask("GET", "/v2/models/movie-sentiment").json()
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in metadata["outputs"]] == ["label", "scores"]
    assert metadata["outputs"][1]["shape"] == [-1, 2]
    assert metadata["parameters"]["labels"] == ["negative", "positive"]
    assert metadata["parameters"]["digest"] == "ab" * 32


def test_the_server_is_live_ready_and_names_itself(ask):
    assert ask("GET", "/v2/health/live").json() == {"live": True}
    assert ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert ask("GET", "/v2").json()["name"] == "kovar"
