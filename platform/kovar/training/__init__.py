"""Fine-tuning: a spec, an engine without Ray, and a run on Ray Train."""

from kovar.training.spec import FineTuneSpec, RegistrationSettings, TrainingSettings

__all__ = ["FineTuneSpec", "RegistrationSettings", "TrainingSettings"]
