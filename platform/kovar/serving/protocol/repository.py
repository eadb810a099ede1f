"""The model repository extension of the Open Inference Protocol.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field

from kovar.config import Config
from kovar.errors import RequestError
from kovar.serving.protocol.served import ServedVersion


@dataclass(frozen=True, slots=True)
class ModelState:
    """Whether a model is in memory.

    Attributes:
        name: as the protocol says it.
        reason: why it is not; empty where it is.
    """

    name: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = ""


class IndexRequest(Config):
    """Body of `POST /v2/repository/index`; it may be empty."""

    ready: bool = Field(default=False, description="name only the models that are in memory")


class LoadRequest(Config):
    """Body of `POST /v2/repository/models/{model}/load` and of `…/unload`; it may be empty."""

    parameters: dict[str, Any] = Field(
        default={}, description="none may change what is loaded: that is what the registry says"
    )


class Listed(Protocol):
    """What the index tells of a model."""

    @property
    def served(self) -> ServedVersion:
        """The version."""
        ...

    @property
    def state(self) -> ModelState:
        """Whether it is in memory."""
        ...


def repository_index(models: Sequence[Listed], *, ready: bool = False) -> list[dict[str, Any]]:
    """Answer `POST /v2/repository/index`.

    Args:
        models: of the application.
        ready: leave out what is not in memory.
    """
    states = [(model.served, model.state) for model in models]
    return [
        {
            "name": served.model,
            "version": str(served.version),
            "state": state.name,
            "reason": state.reason,
        }
        for served, state in states
        if not ready or state.name == "READY"
    ]


def check_load_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse a load that brings a configuration or files of its own.

    Raises:
        RequestError: 400 it does.
    """
    if any(name == "config" or name.startswith("file:") for name in parameters):
        raise RequestError(
            "a model is loaded as it stands in the registry, without config and files",
            status=400,
            code="not_overridable",
            field="parameters",
        )
