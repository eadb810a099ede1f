"""What runs left behind: status, where the time went, attempts, failures; read without Ray."""

from kovar.training.history.attempt import Attempt, Failure
from kovar.training.history.finding import Finding, findings, why_ended
from kovar.training.history.run_history import RunHistory, Throughput, read_history
from kovar.training.history.search import RunSummary, find_run, list_runs, trials_of
from kovar.training.history.status import LIVE, STATUSES, Status
from kovar.training.history.timeline import MEANING, Phase, Span, Timeline, make_timeline

__all__ = [
    "LIVE",
    "MEANING",
    "STATUSES",
    "Attempt",
    "Failure",
    "Finding",
    "Phase",
    "RunHistory",
    "RunSummary",
    "Span",
    "Status",
    "Throughput",
    "Timeline",
    "find_run",
    "findings",
    "list_runs",
    "make_timeline",
    "read_history",
    "trials_of",
    "why_ended",
]
