"""Fine-tuning: a spec, an engine without Ray, and a run on Ray Train."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kovar.training.spec import FineTuneSpec, RegistrationSettings, TrainingSettings

__all__ = ["FineTuneSpec", "RegistrationSettings", "TrainingSettings"]


def __getattr__(name: str) -> Any:
    """Import the spec when it is asked for: reading a run's log needs no pyarrow and no numpy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kovar.training import spec

    return getattr(spec, name)
