"""What a run did to go on where it could not go on as its spec says: for the card and `explain`."""

from __future__ import annotations

from collections.abc import Iterable

from kovar.training.history.moment import Event, leading, number


def incidents(events: Iterable[Event]) -> dict[str, str]:
    """Return a sentence for each incident, in order of time, with what to do about it.

    A decision that a resumed run has repeated is told once.
    """
    return dict(told for event in leading(events) if (told := _told(event)) is not None)


def _told(event: Event) -> tuple[str, str] | None:
    step = int(number(event, "step"))
    match event.get("event"):
        case "skipped":
            steps = ", ".join(str(one) for one in event.get("steps") or ())
            return (
                f"gradients were not finite at step {steps}: those batches changed no weight",
                "look at the rows of these batches, or lower training.learning_rate",
            )
        case "rolled_back":
            return (
                f"went back from step {step} to step {int(number(event, 'to_step'))} and from "
                f"{event.get('was')} to {event.get('precision')}: {event.get('reason')}",
                f"lower training.learning_rate, or begin in {event.get('precision')}",
            )
        case "shrunk":
            tokens = int(number(event, "micro_batch_tokens"))
            return (
                f"step {step} did not fit into the memory: it went on with {tokens} tokens in a "
                "pass, and the same batches",
                f"set training.micro_batch_tokens: {tokens}, or auto",
            )
    return None
