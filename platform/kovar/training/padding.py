"""Whether a batch is padded to its longest row, or its rows stand in one line without padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from kovar.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kovar.precision import ResolvedPrecision
    from kovar.training.tasks import Collated

ATTENTION_DROPOUTS: Final = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
"""Fields of config.json that hold the dropout of attention weights."""

PaddingFree = Literal["auto"] | bool
"""As a spec asks for it: where it pays, always, or never."""


@dataclass(frozen=True, slots=True)
class ResolvedPadding:
    """What batches of a run look like.

    Args:
        padding_free: whether rows stand in one line.
        reason: why, as a sentence.
        first_position: of each row in the line.
    """

    padding_free: bool
    reason: str
    first_position: int = 0


PADDED = ResolvedPadding(False, "rows of like length share a batch")


def resolve_padding(
    asked: PaddingFree,
    config: Mapping[str, Any],
    *,
    device_type: str,
    precision: ResolvedPrecision,
) -> ResolvedPadding:
    """Choose rows in a line where one kernel attends within each of them, padded rows elsewhere.

    Args:
        asked: `training.padding_free`.
        config: content of the base model's config.json.
        device_type: torch's name of the device.
        precision: as resolved for it.

    Raises:
        SpecError: it is asked for, and the model cannot do without padding.
    """
    from kovar.models import first_position, varlen_obstacle

    if asked is False:
        return ResolvedPadding(False, "training.padding_free: false")
    check_padding(asked, config)
    if asked is True:
        return ResolvedPadding(True, "training.padding_free: true", first_position(config))
    obstacle = varlen_obstacle(config)
    drops = any(config.get(name) for name in ATTENTION_DROPOUTS)
    obstacle = obstacle or _no_kernel(device_type, precision, drops=drops)
    if obstacle is not None:
        return ResolvedPadding(False, f"{obstacle}; rows of like length share a batch")
    return ResolvedPadding(True, "one kernel attends within each row", first_position(config))


def check_padding(asked: PaddingFree, config: Mapping[str, Any]) -> None:
    """Refuse rows in a line for a model that cannot read them.

    Args:
        asked: `training.padding_free`.
        config: content of the base model's config.json.

    Raises:
        SpecError: saying why it cannot.
    """
    from kovar.models import varlen_obstacle

    obstacle = varlen_obstacle(config)
    if asked is True and obstacle is not None:
        raise SpecError(
            obstacle,
            field="training.padding_free",
            got=True,
            allowed="auto or false",
            hint="rows of like length share a batch, so little of it is padding",
        )


def _no_kernel(device_type: str, precision: ResolvedPrecision, *, drops: bool) -> str | None:
    """Return why no kernel attends within all rows at once."""
    if device_type != "cuda":
        return "only CUDA chips have a kernel for rows of different lengths"
    if not precision.autocast:
        return f"the kernel for rows of different lengths does not compute in {precision.precision}"
    if drops:
        return "the kernel for rows of different lengths has no dropout (training.dropout: 0)"
    return None


def in_line(found: Collated, lengths: NDArray[np.int32], first_position: int) -> Collated:
    """Return collated rows in one line.

    What is per token has shape (1, tokens) then, in inputs and in targets, and `target_positions`
    count in the line. `position_ids` and `cu_seq_lens_q` (int32: where rows begin, and the end)
    say which row a token is of; a row in which positions start again is several.

    Args:
        found: padded on the right.
        lengths: tokens of each row.
        first_position: of each row.
    """
    shape = found.inputs["input_ids"].shape
    mask = np.arange(shape[1]) < lengths[:, None]
    places = np.cumsum(mask) - 1

    def line(array: NDArray[Any]) -> NDArray[Any]:
        return array[mask][None] if array.shape[:2] == shape else array

    inputs = {name: line(a) for name, a in found.inputs.items() if name != "attention_mask"}
    if "position_ids" not in inputs:
        inputs["position_ids"] = line(np.broadcast_to(np.arange(shape[1]) + first_position, shape))
    if "target_positions" in inputs:
        inputs["target_positions"] = places[inputs["target_positions"]]
    starts = np.flatnonzero(inputs["position_ids"][0] == first_position)
    inputs["cu_seq_lens_q"] = np.append(starts, mask.sum()).astype(np.int32)
    # Told, not seen: a table of labels may be as wide as the rows are long.
    targets = line(found.targets) if found.targets_per_token else found.targets
    return replace(found, inputs=inputs, targets=targets)
