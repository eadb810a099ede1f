"""Why a trial's actor was lost, in words; this module imports Ray."""

from __future__ import annotations

from typing import Final

from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from kovar.tuning.nodes import answers

_NODE: Final = "its node"
"""Ray's words: the actor died because its node has died."""


def is_lost_node(problem: BaseException | None, node_id: str | None = None) -> bool:
    """Say whether a trial was lost with its node, which is not the trial's fault.

    Args:
        problem: what Ray raised.
        node_id: where the trial ran; None where it has not told.
    """
    if isinstance(problem, RayTaskError):
        problem = problem.as_instanceof_cause()
    if not isinstance(problem, RayActorError):
        return False
    if problem.preempted or _NODE in str(problem):
        return True
    return node_id is not None and not answers(node_id)


def reason_of(problem: BaseException | None) -> str:
    """Return what went wrong in one line."""
    if problem is None:
        return "ended without a result"
    if isinstance(problem, OutOfMemoryError):
        return "its process was ended: the node ran out of memory"
    if isinstance(problem, RayActorError):
        return "its process died"
    if isinstance(problem, RayTaskError):
        problem = problem.cause or problem
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[-1]}" if lines else type(problem).__name__
