"""The serving spec: the `args` of an application in a Ray Serve configuration file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from kovar.config import Config, Document, SizeBytes
from kovar.inference import MAX_ACCURACY_LOSS, BatchLimits, RuntimeName, RuntimePrecision, Wish
from kovar.resources import CpuRequest, Request
from kovar.serving.access.settings import AccessSettings
from kovar.serving.adapters.settings import AdapterSettings
from kovar.serving.observe.settings import ObserveSettings

MAX_REPLICAS: Final = 1_000


class RequestLimits(Config):
    """What one HTTP request may ask for; more is refused before any work is done."""

    max_text_characters: int = Field(
        default=20_000, ge=1, description="characters of one text, before tokenizing"
    )
    max_inputs: int = Field(default=256, ge=1, description="texts in one request")
    max_attributed: int = Field(
        default=8, ge=1, description="texts in one request that asks for attributions"
    )
    max_body_bytes: SizeBytes = Field(
        default=4 << 20, ge=1, description="size of a request's body, for example 4MiB"
    )
    max_queued: int = Field(
        default=512, ge=1, description="texts that may wait at one replica; more are refused (429)"
    )
    max_wait_s: float = Field(
        default=2.0,
        gt=0,
        description="seconds that a text would wait, as measured; for more it is refused (429)",
    )
    request_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds from a request's arrival to its answer (504)"
    )
    body_timeout_s: float = Field(
        default=10.0, gt=0, description="seconds in which a request's body must arrive (408)"
    )
    truncate: bool = Field(
        default=True,
        description="read the beginning of a text with too many tokens, and say so in the answer; "
        "or refuse it (422)",
    )

    @model_validator(mode="after")
    def _one_request_fits_the_queue(self) -> Self:
        if self.max_inputs > self.max_queued:
            raise ValueError("max_inputs is larger than max_queued: such a request never fits")
        return self


class ReplicaRange(Config):
    """How many replicas run: at least `min`, at most `max`; equal for a fixed number."""

    min: int = Field(
        ge=0, le=MAX_REPLICAS, description="replicas without traffic; 0: the first request waits"
    )
    max: int = Field(ge=1, le=MAX_REPLICAS, description="replicas under the highest traffic")

    @field_validator("max")
    @classmethod
    def _max_is_not_below_min(cls, largest: int, info: ValidationInfo) -> int:
        if largest < info.data.get("min", 1):
            raise ValueError(f"max must be at least min, which is {info.data['min']}")
        return largest

    @property
    def is_fixed(self) -> bool:
        """Whether the number of replicas does not follow the traffic."""
        return self.min == self.max

    @model_serializer
    def _as_written(self) -> int | dict[str, int]:
        return self.min if self.is_fixed else {"min": self.min, "max": self.max}


def _from_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | dict | ReplicaRange):
        raise ValueError("a whole number of replicas, or a range such as {min: 1, max: 4}")
    if not isinstance(value, int):
        return value
    if not 1 <= value <= MAX_REPLICAS:
        raise ValueError(f"the number of replicas must be from 1 to {MAX_REPLICAS:,}")
    return {"min": value, "max": value}


NumReplicas = Annotated[ReplicaRange, BeforeValidator(_from_number)]
"""`num_replicas: 2`, or `num_replicas: {min: 1, max: 4}` for a number that follows the traffic."""


class Autoscaling(Config):
    """How the number of replicas follows the traffic, where it is a range."""

    latency_objective_s: float = Field(
        default=0.5, gt=0, description="seconds within which 99 of 100 texts should be answered"
    )
    upscale_delay_s: float = Field(
        default=5.0, ge=0, description="seconds that more replicas must have been wanted"
    )
    downscale_delay_s: float = Field(
        default=120.0, ge=0, description="seconds that fewer replicas must have been enough"
    )
    to_zero_delay_s: float = Field(
        default=300.0, ge=0, description="seconds without a request until the last replica goes"
    )


class FurtherModel(Config):
    """One more version that an application's replicas serve."""

    model: str = Field(min_length=1, description="name of the model in the registry")
    version: str = Field(
        default="champion", min_length=1, description="alias, number or digest of the version"
    )


class ServingSpec(Config):
    """Which version is served, on what, within which limits."""

    model: str = Field(min_length=1, description="name of the model in the registry")
    version: str = Field(
        default="champion", min_length=1, description="alias, number or digest of the version"
    )
    more_models: tuple[FurtherModel, ...] = Field(
        default=(),
        max_length=256,
        description="further versions that the same replicas serve, of this model or others",
    )
    adapters: AdapterSettings | None = Field(
        default=None, description="adapters of one base, loaded when they are first asked for"
    )
    runtime: RuntimeName = Field(
        default="auto",
        description="what executes the version; auto: the fastest of torch and the exports",
    )
    precision: RuntimePrecision = Field(
        default="auto", description="number format of the compute; int8 is exported and judged"
    )
    max_accuracy_loss: float = Field(
        default=MAX_ACCURACY_LOSS,
        ge=0,
        le=1,
        description="what an export in int8 may lose of the accuracy on the evaluation texts",
    )
    compile: bool = Field(
        default=False, description="compile the model with torch.compile, in the torch runtime"
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a replica; its CPUs, rounded up, if absent"
    )
    replica: Request = Field(default=CpuRequest(), description="hardware of one replica")
    num_replicas: NumReplicas = Field(
        default=ReplicaRange(min=1, max=1),
        description="a number, or {min, max} for a number that follows the traffic",
    )
    placement: Literal["spread", "strict_spread"] = Field(
        default="spread",
        description="spread the replicas over nodes where possible, or never two on one node",
    )
    autoscaling: Autoscaling = Field(default=Autoscaling(), description="how it follows")
    limits: RequestLimits = Field(default=RequestLimits(), description="what is refused")
    batching: BatchLimits = Field(default=BatchLimits(), description="what runs together")
    access: AccessSettings = Field(default=AccessSettings(), description="who may ask")
    observe: ObserveSettings = Field(
        default=ObserveSettings(), description="what is written down about requests"
    )
    plan: bool = Field(
        default=True,
        description="refuse to deploy replicas that the cluster has no place for",
    )

    @field_validator("replica")
    @classmethod
    def _the_runtime_knows_the_chip(cls, replica: Request) -> Request:
        if replica.kind == "tpu":
            raise ValueError("a replica runs on cpu or gpu: no runtime uses TPUs")
        return replica

    @model_validator(mode="after")
    def _the_runtime_can(self) -> Self:
        if self.runtime == "torch" and self.precision == "int8":
            raise ValueError(
                "precision: int8 is computed by exports: take runtime: auto, onnx or openvino"
            )
        if self.runtime == "openvino" and self.replica.kind != "cpu":
            raise ValueError("runtime: openvino computes on CPUs: take onnx or torch on a GPU")
        if self.compile and self.runtime != "torch":
            raise ValueError("compile: true belongs to runtime: torch")
        return self

    @model_validator(mode="after")
    def _adapters_are_computed_by_torch(self) -> Self:
        if self.adapters is None:
            return self
        if self.runtime not in ("auto", "torch") or self.precision == "int8":
            raise ValueError(
                "adapters are computed by torch: take runtime: torch or auto, and no int8"
            )
        if self.compile:
            raise ValueError("compile: true would compile each adapter: take it out")
        return self

    @model_validator(mode="after")
    def _batches_at_a_time_have_threads(self) -> Self:
        parallel = self.batching.parallel
        if parallel == 1:
            return self
        if self.replica.kind != "cpu":
            raise ValueError("batching.parallel: a GPU takes one batch at a time: leave it at 1")
        if self.adapters is not None or self.compile:
            raise ValueError(
                "batching.parallel: adapters and compiled models take one batch at a time: "
                "leave it at 1"
            )
        if parallel > self.threads:
            raise ValueError(
                f"batching.parallel: {parallel} batches at a time need as many threads, and a "
                f"replica has {self.threads}: raise num_threads or replica.cpus, or lower it"
            )
        return self

    @property
    def threads(self) -> int:
        """CPU threads of a replica."""
        return self.num_threads or math.ceil(self.replica.cpus)

    @property
    def threads_per_batch(self) -> int:
        """CPU threads of one batch."""
        return self.threads // self.batching.parallel

    @property
    def wish(self) -> Wish:
        """What is wished of the runtime."""
        return Wish(self.runtime, self.precision, self.max_accuracy_loss, self.compile)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Kind of chip that a replica computes on."""
        return "cuda" if self.replica.kind == "gpu" else "cpu"


def read_args(args: Mapping[str, Any] | ServingSpec) -> ServingSpec:
    """Validate the arguments of an application.

    Raises:
        SpecError: naming the field, what was got and what is allowed.
    """
    return args if isinstance(args, ServingSpec) else Document.of(args).parse(ServingSpec)
