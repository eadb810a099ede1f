"""A language model run by PyTorch: how well it expects a text, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.data import DataSpec
from kovar.data.language import LanguageBatch, collate_causal, collate_masked
from kovar.data.layouts import LAYOUTS, EncodedRows, Encoding
from kovar.data.layouts.causal_text import Form
from kovar.inference.runtime import plan_batches
from kovar.inference.torch_model import TorchModel
from kovar.models import head_of, select_targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SPECS: Final[dict[Form, DataSpec]] = {
    "text": DataSpec(source="texts"),
    "prompt": DataSpec(source="texts", prompt="prompt", completion="completion"),
    "messages": DataSpec(source="texts", messages="messages"),
}
"""What tells the layout how rows are written."""

ROWS_PER_CALL: Final = 1_024


@dataclass(frozen=True, slots=True)
class TextLoss:
    """How well one text is expected.

    Attributes:
        loss_sum: Σ of the cross-entropies of the tokens that count, in nats.
        num_tokens: how many they are.
        num_right: for how many the model's first guess is right.
    """

    loss_sum: float
    num_tokens: int
    num_right: int

    @property
    def loss(self) -> float:
        """The mean over the tokens, in nats."""
        return self.loss_sum / max(1, self.num_tokens)


class TorchScorer:
    """A language model under `torch.inference_mode`.

    A causal one expects each token from those before it; a masked one guesses hidden tokens, the
    same ones each time.

    Args:
        loaded: the model and its tokenizer.
    """

    name = "torch"

    def __init__(self, loaded: TorchModel) -> None:
        self.task = head_of(loaded.files.config) or "causal-lm"
        self.labels: tuple[str, ...] = ()
        self.max_length = loaded.max_length
        self.precision = loaded.precision
        self._loaded = loaded
        model: Any = loaded.model
        select_targets(model)

    def score(
        self,
        texts: Sequence[str],
        *,
        form: Form = "text",
        max_tokens: int = 2048,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[TextLoss]:
        """Score any number of texts, in batches of like length.

        Args:
            texts: texts; or in JSON, prompts with completions or conversations, of which the
                completions and the assistant's words count.
            form: which of these.
            max_tokens: padded tokens (rows × longest) that a batch may have.
            progress: called with (texts done, texts in all).

        Raises:
            DataError: a text is not of the form, or the chat template refuses it.
            FloatingPointError: the model's output is not finite.
        """
        found = [TextLoss(0.0, 0, 0)] * len(texts)
        for start in range(0, len(texts), ROWS_PER_CALL):
            part = texts[start : start + ROWS_PER_CALL]
            rows = _Rows.of(self._encode(part, form), first=start)
            for batch in plan_batches(rows.lengths, max_tokens=max_tokens):
                for row, loss in self._losses(rows, batch):
                    found[row] = loss
            if progress is not None:
                progress(start + len(part), len(texts))
        return found

    def _encode(self, texts: Sequence[str], form: Form) -> tuple[EncodedRows, dict[str, int]]:
        import pyarrow as pa

        loaded = self._loaded
        layout = LAYOUTS["masked-text" if self.task == "masked-lm" else "causal-text"]
        folder = loaded.files.folder
        encoding = Encoding(_SPECS[form], loaded.tokenizer, folder, (), "evaluation")
        table = pa.table({"text": pa.array(list(texts), pa.string())})
        return layout.encode(table, encoding), layout.constants(encoding)

    def _losses(self, rows: _Rows, batch: Sequence[int]) -> list[tuple[int, TextLoss]]:
        import numpy as np
        import torch
        from torch.nn.functional import cross_entropy

        collated = self._collate(rows, batch)
        device = self._loaded.device
        inputs = {name: torch.from_numpy(a).to(device) for name, a in collated.inputs.items()}
        targets = torch.from_numpy(collated.targets).to(device)
        with torch.inference_mode():
            logits = self._loaded.model(**inputs).logits
            losses = cross_entropy(logits.float(), targets, reduction="none").double().cpu()
            right = (logits.argmax(-1) == targets).cpu().numpy()
        if not torch.isfinite(losses).all():
            raise FloatingPointError("the model's output is not finite")
        size = len(batch)
        sums = np.bincount(collated.rows, weights=losses.numpy(), minlength=size)
        counts = np.bincount(collated.rows, minlength=size)
        hits = np.bincount(collated.rows, weights=right, minlength=size)
        return [
            (rows.numbers[row], TextLoss(float(sums[i]), int(counts[i]), int(hits[i])))
            for i, row in enumerate(batch)
        ]

    def _collate(self, rows: _Rows, batch: Sequence[int]) -> LanguageBatch:
        import numpy as np

        chosen, pad_id = np.array(batch, dtype=np.int64), self._loaded.files.pad_id
        longest = max(rows.lengths[row] for row in batch)
        if self.task == "causal-lm":
            return collate_causal(rows, chosen, longest, pad_id=pad_id)
        return collate_masked(rows, chosen, longest, pad_id=pad_id, seed=0, numbers=rows.numbers)


class _Rows:
    """Encoded rows in memory, as collating asks for them."""

    def __init__(
        self,
        tokens: list[NDArray[np.int32]],
        roles: list[NDArray[np.uint8]],
        numbers: list[int],
        constants: dict[str, int],
    ) -> None:
        self.constants = constants
        self.numbers = numbers
        self.lengths = [len(ids) for ids in tokens]
        self._values: dict[str, Any] = {"input_ids": tokens, "roles": roles}

    @classmethod
    def of(cls, encoded: tuple[EncodedRows, dict[str, int]], *, first: int) -> _Rows:
        import numpy as np

        rows, constants = encoded
        roles = [np.array(one, dtype=np.uint8) for one in rows.targets["roles"].to_pylist()]
        origin = range(len(rows.tokens)) if rows.origin is None else rows.origin.tolist()
        return cls(rows.tokens, roles, [first + row for row in origin], constants)

    def values(self, name: str, row: int) -> NDArray[Any]:
        found: NDArray[Any] = self._values[name][row]
        return found
