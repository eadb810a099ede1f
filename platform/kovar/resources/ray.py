"""Requests in Ray's words: pure functions, checked against Ray's own classes by the tests."""

from __future__ import annotations

from typing import Any

from kovar.errors import SpecError
from kovar.resources.request import CpuRequest, GpuRequest, Request, Resources, TpuRequest
from kovar.resources.tpu_slice import RAY_TPU_TYPES, largest_on_one_host


def scaling_config_kwargs(resources: Resources) -> dict[str, Any]:
    """Return the arguments of `ray.train.ScalingConfig`.

    An elastic number of workers becomes a `(min, max)` tuple. A TPU worker takes all the chips of
    its host, so that Ray reserves whole slices.
    """
    number, worker = resources.num_workers, resources.worker
    per_worker: dict[str, float] = {"CPU": worker.cpus}
    if worker.memory is not None:
        per_worker["memory"] = worker.memory
    kwargs: dict[str, Any] = {
        "num_workers": number.min if number.is_fixed else (number.min, number.max),
        "resources_per_worker": per_worker,
    }
    match worker:
        case CpuRequest():
            pass
        case GpuRequest():
            per_worker["GPU"] = worker.count
            kwargs["use_gpu"] = True
            if worker.type:
                kwargs["accelerator_type"] = worker.type[0]
        case TpuRequest():
            per_worker["TPU"] = worker.chips_per_host
            kwargs["use_tpu"] = True
            kwargs["accelerator_type"] = RAY_TPU_TYPES[worker.type[0]]
            kwargs["topology"] = worker.topology
    return kwargs


def actor_options(request: Request, *, field: str = "request") -> dict[str, Any]:
    """Return the options of one Ray actor: Serve's `ray_actor_options`, a Tune trial's resources.

    Args:
        request: what the actor needs.
        field: path of the request, for messages.

    Raises:
        SpecError: the request is a TPU slice of several hosts, which no single actor spans.
    """
    options: dict[str, Any] = {"num_cpus": request.cpus}
    if request.memory is not None:
        options["memory"] = request.memory
    match request:
        case CpuRequest():
            pass
        case GpuRequest():
            options["num_gpus"] = request.count
            if request.type:
                options["accelerator_type"] = request.type[0]
        case TpuRequest():
            if request.num_hosts > 1:
                raise SpecError(
                    f"one trial or replica runs on one host; this slice has {request.num_hosts}",
                    field=f"{field}.topology",
                    got=request.topology,
                    hint=f"use topology: {largest_on_one_host(request.type[0])}, the largest "
                    f"{request.type[0]} slice with one host",
                )
            options["accelerator_type"] = RAY_TPU_TYPES[request.type[0]]
            options["resources"] = {"TPU": request.chips_per_host}
    return options
