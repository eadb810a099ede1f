"""Weights & Biases: one run there per run here, under the same id."""

from __future__ import annotations

import os

from kovar.training.trackers.scalars import Point
from kovar.training.trackers.tracker import TrackedRun


class WandbRun:
    """Weights & Biases, set by its own variables (`WANDB_PROJECT`, `WANDB_ENTITY`, …).

    Without `WANDB_MODE` and `WANDB_API_KEY` it works offline, into the run's folder: a job has no
    terminal to ask for a key. `wandb sync` uploads such a run later.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        keyed = "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kovar"),
            id=run.run,
            name=run.run,
            group=run.model,
            config=dict(run.spec),
            dir=str(run.folder),
            resume="allow",
            mode=None if keyed else "offline",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        # An axis of its own: W&B drops the steps that a resumed run repeats on its default one.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, point: Point) -> None:
        """Queue the scalars of one step."""
        self._run.log({"step": point.step, **point.scalars})

    def finish(self, *, succeeded: bool) -> None:
        """Upload what is queued and end the run."""
        self._run.finish(exit_code=0 if succeeded else 1)
