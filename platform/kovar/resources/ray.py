"""Requests in Ray's words: pure functions, checked against Ray's own classes by the tests.

A request is given as a plan made it concrete: one accelerator type, a number of GPUs. Ray does not
count disks, so that part of a request is for the plan alone.
"""

from __future__ import annotations

from typing import Any, Final

from kovar.errors import SpecError
from kovar.resources.declaration import SPOT_LABEL
from kovar.resources.request import (
    CpuRequest,
    GpuRequest,
    PlacementStrategy,
    Request,
    Resources,
    TpuRequest,
)
from kovar.resources.tpu_slice import RAY_TPU_TYPES, largest_on_one_host

_TYPE_SHARE: Final = 0.001
"""How much of a node's `accelerator_type:…` Ray takes for a worker that names the type."""


def scaling_config_kwargs(resources: Resources, request: Request | None = None) -> dict[str, Any]:
    """Return the arguments of `ray.train.ScalingConfig`.

    An elastic number of workers becomes a `(min, max)` tuple. A TPU worker takes all the chips of
    its host, so that Ray reserves whole slices.

    Args:
        resources: the workers as written.
        request: what the plan gives each of them; by default the first of the types as written.

    Raises:
        SpecError: labels for several TPU workers, whose hosts Ray Train chooses by itself.
    """
    worker = _first_type(resources.worker) if request is None else request
    number = resources.num_workers
    per_worker: dict[str, float] = {"CPU": worker.cpus, **worker.custom_resources}
    if worker.memory is not None:
        per_worker["memory"] = worker.memory
    kwargs: dict[str, Any] = {
        "num_workers": number.min if number.is_fixed else (number.min, number.max),
        "resources_per_worker": per_worker,
        "placement_strategy": resources.placement.upper(),
        "label_selector": label_selector(worker),
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
            # Ray Train selects the hosts of a slice by a label of its own, and takes no other. So
            # it may put them on Spot slices, too.
            if number.max > 1:
                kwargs["label_selector"] = None
                _refuse_labels(worker)
    return {name: value for name, value in kwargs.items() if value}


def actor_options(request: Request, *, field: str = "request") -> dict[str, Any]:
    """Return the options of one Ray actor, which are Serve's `ray_actor_options` as well.

    Args:
        request: what the actor needs.
        field: path of the request, for messages.

    Raises:
        SpecError: the request is a TPU slice of several hosts, which no single actor spans.
    """
    _refuse_several_hosts(request, field)
    options: dict[str, Any] = {"num_cpus": request.cpus}
    if request.memory is not None:
        options["memory"] = request.memory
    resources = dict(request.custom_resources)
    match request:
        case CpuRequest():
            pass
        case GpuRequest():
            options["num_gpus"] = request.count
            if request.type:
                options["accelerator_type"] = request.type[0]
        case TpuRequest():
            options["accelerator_type"] = RAY_TPU_TYPES[request.type[0]]
            resources["TPU"] = request.chips_per_host
    selector = label_selector(request)
    options |= {"resources": resources} if resources else {}
    options |= {"label_selector": selector} if selector else {}
    return options


def replica_options(
    request: Request, placement: PlacementStrategy = "pack", *, field: str = "request"
) -> dict[str, Any]:
    """Return the options of a Serve deployment that say where its replicas run.

    Serve places each replica by itself: it can keep replicas apart, not together.

    Raises:
        SpecError: what no single actor can be, or `placement: strict_pack`.
    """
    options: dict[str, Any] = {"ray_actor_options": actor_options(request, field=field)}
    if placement == "strict_pack":
        raise SpecError(
            "Ray Serve cannot hold all replicas on one node",
            field="placement",
            got=placement,
            allowed="pack, spread, strict_spread",
        )
    if placement == "strict_spread":
        options["max_replicas_per_node"] = 1
    return options


def trial_resources(request: Request, *, field: str = "request") -> dict[str, Any]:
    """Return the arguments of `ray.tune.PlacementGroupFactory` for a trial of one worker.

    Raises:
        SpecError: the request is a TPU slice of several hosts, which no single trial spans.
    """
    selector = label_selector(request)
    arguments: dict[str, Any] = {"bundles": [bundle_of(request, field=field)]}
    return arguments | ({"bundle_label_selector": [selector]} if selector else {})


def bundle_of(request: Request, *, field: str = "request") -> dict[str, float]:
    """Return the bundle of a placement group for one worker.

    Raises:
        SpecError: the request is a TPU slice of several hosts, which no single bundle spans.
    """
    _refuse_several_hosts(request, field)
    bundle = {"CPU": request.cpus, **request.custom_resources}
    if request.memory is not None:
        bundle["memory"] = request.memory
    match request:
        case CpuRequest():
            return bundle
        case GpuRequest(type=types):
            bundle["GPU"] = request.count
            names = list(types[:1])
        case TpuRequest():
            bundle["TPU"] = request.chips_per_host
            names = [RAY_TPU_TYPES[request.type[0]]]
    return bundle | {f"accelerator_type:{name}": _TYPE_SHARE for name in names}


def label_selector(request: Request) -> dict[str, str]:
    """Return what Ray must see in the labels of a worker's node.

    A node without the label for Spot meets `!true`, so on clusters without labels nothing changes.
    """
    return dict(request.labels) | ({} if request.spot else {SPOT_LABEL: "!true"})


def _first_type(request: Request) -> Request:
    if isinstance(request, CpuRequest):
        return request
    return request.model_copy(update={"type": request.type[:1]})


def _refuse_labels(request: TpuRequest) -> None:
    if request.labels:
        raise SpecError(
            "Ray Train reserves TPU slices by a label of its own and takes no other labels",
            field="resources.worker.labels",
            got=str(dict(request.labels)),
            hint="leave out labels: type and topology choose the slice",
        )


def _refuse_several_hosts(request: Request, field: str) -> None:
    if isinstance(request, TpuRequest) and request.num_hosts > 1:
        raise SpecError(
            f"one trial or replica runs on one host; this slice has {request.num_hosts}",
            field=f"{field}.topology",
            got=request.topology,
            hint=f"use topology: {largest_on_one_host(request.type[0])}, the largest "
            f"{request.type[0]} slice with one host",
        )
