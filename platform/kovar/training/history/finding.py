"""What stands out in a run's history, each with what to do: why it failed, what made it slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kovar.config import format_duration
from kovar.training.history.incident import incidents
from kovar.training.history.run_history import RunHistory
from kovar.training.history.timeline import Phase

_RESUBMIT: Final = "submit the same spec again: it {resumes}"


@dataclass(frozen=True)
class Finding:
    """One observation."""

    what: str
    advice: str | None = None


def why_ended(history: RunHistory) -> Finding | None:
    """Say why a run failed or was interrupted; None for one that did not."""
    if history.status == "interrupted":
        told = history.failures[-1:] if history.failures else ()
        if told and told[0].error in ("KeyboardInterrupt", "SystemExit"):
            return Finding(f"it was interrupted ({told[0].error})", _resubmission(history))
        return Finding(
            "its driver ended without a word: it was killed, or its machine was lost",
            _resubmission(history),
        )
    if history.status != "failed" or not history.failures:
        return None
    failure = history.failures[-1]
    message, _, hint = failure.message.partition("\n  → ")
    return Finding(f"{failure.error}: {message}", _advice(history) or hint or None)


def findings(history: RunHistory) -> list[Finding]:
    """Return what stands out in where the time went, the costliest first."""
    found = [
        *_crashes(history),
        *_incidents(history),
        *(one for rule in _RULES if (one := rule(history)) is not None),
    ]
    return [one for one in found if one is not None]


def _advice(history: RunHistory) -> str | None:
    """Match what failed against what is known to help."""
    text = " ".join(f"{f.error} {f.message}" for f in history.failures[-3:]).lower()
    for signs, advice in _REMEDIES:
        if any(sign in text for sign in signs):
            return advice.format(resubmit=_resubmission(history))
    return None


_REMEDIES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("out of memory", "outofmemory", "oom"),
        "lower training.max_tokens or data.max_length, or ask for more resources.worker.memory; "
        "then submit it as a new run",
    ),
    (
        ("nonfiniteerror", "not finite", "nan or infinite"),
        "lower training.learning_rate, or set precision: fp32; the same spec would fail again",
    ),
    (
        ("no space left", "disk quota"),
        "free space in the runs folder (kovar models gc frees the registry's), then {resubmit}",
    ),
    (
        ("placement group", "insufficient resources", "waited too long", "startup timed out"),
        "kovar plan SPEC --cluster FILE says what the cluster can hold; then {resubmit}",
    ),
    (
        ("worker died", "actor died", "unexpectedly", "sigkill", "node failure", "connection"),
        "a worker or its node was lost more often than max_failures allows: raise it, see the "
        "node's logs, then {resubmit}",
    ),
)


def _resubmission(history: RunHistory) -> str:
    saved = [int(e.get("step") or 0) for e in history.events if e.get("event") == "checkpoint"]
    end = f"resumes from step {saved[-1]}" if saved else "starts from the beginning"
    return _RESUBMIT.format(resumes=end)


def _crashes(history: RunHistory) -> list[Finding]:
    found = []
    for attempt, after in zip(history.attempts, history.attempts[1:], strict=False):
        again = f", repeated {after.num_repeated} steps" if after.num_repeated else ""
        lost = f" and lost {format_duration(attempt.lost_s)}" if attempt.lost_s else ""
        start = after.resumed_from if after.resumed_from is not None else 0
        found.append(
            Finding(
                f"attempt {attempt.number} {attempt.outcome} after step {attempt.last_step}; "
                f"attempt {after.number} went on from step {start}{again}{lost}",
                f"lower training.checkpoint_every (now {_setting(history, 'checkpoint_every')})"
                if after.num_repeated >= 100
                else None,
            )
        )
        found += [Finding(f"a checkpoint was ignored: {reason}") for reason in after.ignored]
    return found


def _incidents(history: RunHistory) -> list[Finding]:
    return [Finding(told, advice) for told, advice in incidents(history.events).items()]


def _slow(
    phase: Phase, share: float, seconds: float, advice: str
) -> Callable[[RunHistory], Finding | None]:
    """Make a rule: a phase that takes more than a share, and more than some seconds."""

    def rule(history: RunHistory) -> Finding | None:
        took, total = history.timeline.seconds.get(phase, 0.0), history.timeline.total_s
        if took < seconds or took < share * total:
            return None
        text = advice.format(
            evaluate_every=_setting(history, "evaluate_every"),
            checkpoint_every=_setting(history, "checkpoint_every"),
        )
        return Finding(f"{phase} took {took / total:.0%} of the time", text)

    return rule


def _padding(history: RunHistory) -> Finding | None:
    speed = history.throughput
    if speed is None or speed.padding < 0.15:
        return None
    return Finding(
        f"{speed.padding:.0%} of the tokens that were computed are padding",
        "raise training.max_tokens, so that a batch finds more rows of one length",
    )


_RULES: Final[tuple[Callable[[RunHistory], Finding | None], ...]] = (
    _slow("placing", 0.2, 60, "kovar plan says where it fits; ask for hardware that is free"),
    _slow("starting", 0.3, 60, "keep a cluster up, or bake the packages into its image"),
    _slow("downloading", 0.3, 60, "share cache_dir between runs: it is downloaded once"),
    _slow("tokenizing", 0.3, 60, "share cache_dir between runs: it is tokenized once"),
    _slow("compiling", 0.3, 60, "compiling pays off for longer runs only"),
    _slow("evaluating", 0.3, 30, "raise training.evaluate_every (now {evaluate_every})"),
    _slow("checkpointing", 0.05, 30, "raise training.checkpoint_every (now {checkpoint_every})"),
    _padding,
)


def _setting(history: RunHistory, name: str) -> str:
    training = history.spec.get("training")
    value = training.get(name) if isinstance(training, dict) else None
    return "not set" if value is None else str(value)
