"""What trials start from: the base model and the tokenized data, prepared once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.config import canonical_json
from kovar.settings import Settings
from kovar.training.plan import RunPlan, unplanned_run
from kovar.training.preparation import Inputs, check_inputs, check_libraries, fetch_inputs
from kovar.training.progress import RunProgress
from kovar.training.spec import FineTuneSpec
from kovar.training.task import WorkerTask

if TYPE_CHECKING:
    from kovar.registry import Registry


class TrialInputs:
    """Prepares trials; those of the same model and data share what was fetched and tokenized.

    Args:
        base_dir: folder that relative paths of the base spec start from.
        settings: where the caches are.
        registry: needed for models that are versions.
        progress: told about downloads and tokenizing.
    """

    def __init__(
        self, *, base_dir: Path, settings: Settings, registry: Registry, progress: RunProgress
    ) -> None:
        self._base_dir = base_dir
        self._settings = settings
        self._registry = registry
        self._progress = progress
        self._found: dict[bytes, Inputs] = {}
        self._passed: set[bytes] = set()

    def task(self, spec: FineTuneSpec, *, folder: Path, plan: RunPlan | None = None) -> WorkerTask:
        """Check a trial against its inputs and return what its workers are given.

        The first trial of a model and data set takes as long as fetching and tokenizing, further
        ones take milliseconds.

        Args:
            spec: of the trial.
            folder: of the trial; it need not exist.
            plan: where it goes; None where nothing was planned.

        Raises:
            MissingExtraError: an optimizer, a method or a precision whose library is absent.
            UserError: the spec, the data or the model is at fault.
        """
        plan = plan or unplanned_run(spec)
        check_libraries(spec, plan)
        key = canonical_json(_identity(spec))
        if key not in self._found:
            self._found[key] = fetch_inputs(
                spec,
                base_dir=self._base_dir,
                settings=self._settings,
                registry=self._registry,
                progress=self._progress,
            )
        inputs = self._found[key]
        checked = canonical_json(_checked(spec, plan))
        if checked not in self._passed:
            check_inputs(spec, plan, inputs)
            self._passed.add(checked)
        return WorkerTask(
            spec=spec,
            folder=folder,
            dataset=inputs.dataset,
            base=inputs.base,
            request=plan.request,
            num_threads=max(1, int(plan.request.cpus)),
            purpose="trial",
        )


_UNCHECKED: Final[Any] = {
    "name": True,
    "registration": True,
    "max_failures": True,
    "training": {
        "epochs", "max_steps", "learning_rate", "schedule", "warmup", "weight_decay",
        "max_gradient_norm", "label_smoothing", "metric", "keep_best", "early_stopping", "seed",
        "evaluate_every", "checkpoint_every", "keep_checkpoints",
    },
}  # fmt: skip
"""Fields on which neither memory nor what a model can learn depends."""


def _checked(spec: FineTuneSpec, plan: RunPlan) -> dict[str, object]:
    """Return what decides whether the inputs suit a trial; its memory takes long to estimate."""
    return {
        "identity": _identity(spec),
        "spec": spec.model_dump(mode="json", exclude=_UNCHECKED),
        "request": plan.request.model_dump(mode="json"),
        "precision": plan.precision.precision,
        "room": repr(plan.room),
    }


def _identity(spec: FineTuneSpec) -> dict[str, object]:
    """Return what decides the model's folder and the tokenized rows."""
    is_drawn = spec.model.base is None
    return {
        "task": spec.task,
        "model": spec.model.model_dump(mode="json"),
        "data": spec.data.model_dump(mode="json"),
        "seed": spec.training.seed if is_drawn else None,
    }
