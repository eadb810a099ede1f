"""How a version reads texts: its tokenizer, its lengths and the names of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.data.tokenizer import TOKENIZER_FILE
from kovar.errors import ModelError
from kovar.inference.runtime import Encoded, Text
from kovar.models import MULTILABEL, check_adapter, check_folder, is_adapter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from kovar.models import BaseModelFiles

_SIZES = ("hidden_size", "dim", "n_embd", "d_model")


@dataclass(frozen=True)
class Padded:
    """One batch as rectangles, shape (rows, longest).

    Attributes:
        ids: token ids, int64.
        mask: 1 for tokens and 0 for padding, int64; None where no row is padded.
        types: 1 for tokens of second texts, int64; None where there are none.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64] | None
    types: NDArray[np.int64] | None

    def whole_mask(self) -> NDArray[np.int64]:
        """Return the mask, also where no row is padded."""
        import numpy as np

        return np.ones_like(self.ids) if self.mask is None else self.mask


@dataclass(frozen=True)
class Reader:
    """Turns texts into token ids as in training; loads neither weights nor torch.

    Args:
        tokenizer: truncates to `max_length`.
        files: the checked files.
        max_length: tokens that one text may have.
    """

    tokenizer: Tokenizer
    files: BaseModelFiles
    max_length: int

    @classmethod
    def of(cls, folder: Path, *, base_folder: Path | None = None) -> Reader:
        """Check a version's folder and load its tokenizer.

        Args:
            folder: the files of the version.
            base_folder: the files of the version that an adapter was trained on.

        Raises:
            ModelError: a file is missing or damaged, or an adapter's base is not given.
        """
        from tokenizers import Tokenizer

        files = check_version(folder, base_folder)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        # The length that a version was trained and evaluated at is its tokenizer's truncation.
        stored = (tokenizer.truncation or {}).get("max_length", files.max_positions)
        max_length = min(stored, files.max_positions)
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()
        return cls(tokenizer, files, max_length)

    @property
    def any_labels(self) -> bool:
        """Whether a text has any number of labels."""
        return self.files.config.get("problem_type") == MULTILABEL

    @property
    def has_types(self) -> bool:
        """Whether the model tells second texts apart by token types."""
        return int(self.files.config.get("type_vocab_size") or 0) > 1

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        return int(self.files.config["vocab_size"])

    @property
    def embedding_size(self) -> int:
        """Width of the last hidden states."""
        return embedding_size_of(self.files.config)

    def tokenize(self, texts: Sequence[Text]) -> list[Encoded]:
        """Turn texts into token ids; the library releases the GIL meanwhile."""
        encodings = self.tokenizer.encode_batch_fast(list(texts))
        return [
            Encoded(
                tuple(item.ids),
                truncated=bool(item.overflowing),
                second=item.type_ids.index(1) if 1 in item.type_ids else None,
            )
            for item in encodings
        ]

    def spans(self, text: Text) -> list[tuple[str, int, int]]:
        """Return each token, its first character in its text and the one after its last."""
        one = self.tokenizer.encode_batch([text])[0]
        return [(token, *place) for token, place in zip(one.tokens, one.offsets, strict=True)]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that no text has: beginning, end, separator."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(id_ for id_, token in added.items() if token.special)

    def pad(self, batch: Sequence[Encoded], *, step: int = 1) -> Padded:
        """Fill rows up to the longest of the batch, or to the next multiple of `step`."""
        import numpy as np

        lengths = np.fromiter((len(item.ids) for item in batch), np.int64, len(batch))
        longest = -(-int(lengths.max()) // step) * step
        flat = np.fromiter(chain.from_iterable(item.ids for item in batch), np.int64)
        if len(flat) == len(batch) * longest:
            rows = flat.reshape(len(batch), longest)
            return Padded(rows, None, self._types(batch, lengths, longest))
        mask = np.arange(longest) < lengths[:, None]
        ids = np.full(mask.shape, self.files.pad_id, dtype=np.int64)
        ids[mask] = flat
        return Padded(ids, mask.astype(np.int64), self._types(batch, lengths, longest))

    def _types(
        self, batch: Sequence[Encoded], lengths: NDArray[np.int64], longest: int
    ) -> NDArray[np.int64] | None:
        import numpy as np

        if not self.has_types or all(item.second is None for item in batch):
            return None
        starts = np.array([item.length if item.second is None else item.second for item in batch])
        places = np.arange(longest)
        types = (places >= starts[:, None]) & (places < lengths[:, None])
        return types.astype(np.int64)


def embedding_size_of(config: Mapping[str, Any]) -> int:
    """Return the width of the last hidden states.

    Args:
        config: content of config.json.
    """
    return next(int(config[name]) for name in _SIZES if name in config)


def check_version(folder: Path, base_folder: Path | None) -> BaseModelFiles:
    """Check a version's folder without loading it.

    Raises:
        ModelError: a file is missing or damaged, or an adapter's base is not given.
    """
    if not is_adapter(folder):
        return check_folder(folder, source=str(folder))
    if base_folder is None:
        raise ModelError(
            "the folder holds an adapter, and its base is not given",
            file=folder,
            hint="load it by its version in the registry, which knows the base",
        )
    return check_adapter(folder, base=base_folder)
