"""A version that gives every word of a text a tag, run by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kovar.inference.runtime import plan_batches
from kovar.inference.torch_model import TorchModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tagging:
    """The answer for one text.

    Attributes:
        words: the words of the text.
        tags: the tag of each word; None where the model did not read it.
        scores: the probability of every tag of each word that was read, in the order of the tags,
            shape (words, tags).
        num_tokens: tokens that were read, special ones included.
        truncated: the text had more tokens than the model takes, so its last words have no tag.
    """

    words: tuple[str, ...]
    tags: tuple[str | None, ...]
    scores: tuple[tuple[float, ...], ...]
    num_tokens: int
    truncated: bool

    @property
    def numbers(self) -> tuple[float, ...]:
        """All probabilities, word by word: what golden examples hold."""
        return tuple(score for word in self.scores for score in word)


class TorchTagger:
    """A classifier of tokens under `torch.inference_mode`; a word has the tag of its first token.

    Args:
        loaded: the classifier and its tokenizer.
    """

    name = "torch"
    task = "token-classification"

    def __init__(self, loaded: TorchModel) -> None:
        self.labels = loaded.files.labels
        self.max_length = loaded.max_length
        self.precision = loaded.precision
        self._loaded = loaded

    def tag(self, texts: Sequence[str | Sequence[str]], *, max_tokens: int = 2048) -> list[Tagging]:
        """Tag the words of any number of texts, in batches of like length.

        Args:
            texts: each as its words, or as a text, which is divided at white space.
            max_tokens: padded tokens (rows × longest) that a batch may have.

        Raises:
            FloatingPointError: the model's output is not finite.
        """
        words = [tuple(text.split() if isinstance(text, str) else text) for text in texts]
        encoded = self._loaded.tokenizer.encode_batch(words, is_pretokenized=True)
        found: dict[int, Tagging] = {}
        for rows in plan_batches([len(one.ids) for one in encoded], max_tokens=max_tokens):
            scores = self._scores([encoded[row].ids for row in rows])
            for row, table in zip(rows, scores, strict=True):
                found[row] = self._tagging(words[row], encoded[row], table)
        return [found[row] for row in range(len(words))]

    def _scores(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the probabilities of every tag of each token, shape (rows, length, tags)."""
        import numpy as np
        import torch

        lengths = np.array([len(ids) for ids in batch])
        places = np.arange(lengths.max())
        mask = places < lengths[:, None]
        ids = np.full(mask.shape, self._loaded.files.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate(batch)
        device = self._loaded.device
        with torch.inference_mode():
            logits = self._loaded.model(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(mask.astype(np.int64)).to(device),
            ).logits
            scores: NDArray[np.float32] = logits.float().softmax(dim=-1).cpu().numpy()
        if not np.isfinite(scores).all():
            raise FloatingPointError("the model's output is not finite")
        return scores

    def _tagging(self, words: tuple[str, ...], encoded: Any, table: NDArray[np.float32]) -> Tagging:
        first: dict[int, int] = {}
        for place, word in enumerate(encoded.word_ids):
            if word is not None:
                first.setdefault(word, place)
        read = sorted(first)
        scores = table[[first[word] for word in read]]
        best = dict(zip(read, scores.argmax(axis=-1).tolist(), strict=True))
        return Tagging(
            words=words,
            tags=tuple(
                self.labels[best[word]] if word in best else None for word in range(len(words))
            ),
            scores=tuple(tuple(row) for row in scores.tolist()),
            num_tokens=len(encoded.ids),
            truncated=bool(encoded.overflowing),
        )
