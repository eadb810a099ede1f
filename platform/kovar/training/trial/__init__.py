"""What one trial of a sweep measures and leaves: less than a version, and comparable."""

from kovar.training.trial.end import END_FILE, EndStatus, TrialEnd
from kovar.training.trial.files import drop_weights, write_trial
from kovar.training.trial.process_state import ProcessState, isolated
from kovar.training.trial.usage import Meter, Usage
from kovar.training.trial.weights import fill_weights

__all__ = [
    "END_FILE",
    "EndStatus",
    "Meter",
    "ProcessState",
    "TrialEnd",
    "Usage",
    "drop_weights",
    "fill_weights",
    "isolated",
    "write_trial",
]
