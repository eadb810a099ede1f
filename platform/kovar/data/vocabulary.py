"""Tokenizers that are trained on the training texts of a data set, for models from scratch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from kovar.config import Config
from kovar.data.conversation import TEMPLATE_FILE, TOKENIZER_CONFIG
from kovar.data.tokenizer import TOKENIZER_FILE
from kovar.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN: Final = "[UNK]"
ENCODER_TOKENS: Final = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
DECODER_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""How a decoder from scratch writes conversations, until its folder says otherwise."""


class TokenizerSettings(Config):
    """A tokenizer that is trained on the training texts."""

    kind: Literal["characters", "bytes"] = Field(
        description="characters: each is a token, as suits Chinese, and spaces are left out; "
        "bytes: frequent sequences of bytes are (byte-pair encoding), and no text is unknown"
    )
    vocab_size: int = Field(
        ge=300, le=1_000_000, description="tokens at most, special ones included"
    )
    lowercase: bool = Field(default=False, description="read capital letters as small ones")


def write_tokenizer(
    folder: Path, texts: Iterable[str], settings: TokenizerSettings, *, decoder: bool
) -> dict[str, int]:
    """Train a tokenizer and write its files. The same texts give the same bytes.

    Args:
        folder: to fill.
        texts: what it is trained on.
        settings: its kind and size.
        decoder: whether it is for a model that writes text; it knows how conversations are written
            then, and otherwise how texts are framed and hidden.

    Returns:
        What a model's configuration says of it: `vocab_size` and the ids of special tokens.

    Raises:
        DataError: the texts hold no character.
    """
    special = DECODER_TOKENS if decoder else ENCODER_TOKENS
    train = _characters if settings.kind == "characters" else _bytes
    tokenizer = train(texts, settings, special)
    if not decoder:
        _frame(tokenizer)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    names: dict[str, str] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if decoder:
        names |= dict.fromkeys(("eos_token", "bos_token", "pad_token"), special[0])
        (folder / TEMPLATE_FILE).write_text(CHATML, encoding="utf-8")
    else:
        roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        names |= dict(zip(roles, special, strict=True))
    text = json.dumps(names, indent=2, sort_keys=True) + "\n"
    (folder / TOKENIZER_CONFIG).write_text(text, encoding="utf-8")
    ids = {"pad_token_id": 0, "vocab_size": tokenizer.get_vocab_size()}
    return ids | ({"bos_token_id": 0, "eos_token_id": 0} if decoder else {})


def _characters(
    texts: Iterable[str], settings: TokenizerSettings, special: Sequence[str]
) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    normalizer = _normalizer(settings)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update("".join(normalizer.normalize_str(text).split()))
    if not counts:
        raise DataError("the training texts are empty", field="data.text")
    # Of equally frequent characters the first in Unicode, whatever the order of the texts.
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    known = [*special, *ranked[: settings.vocab_size - len(special)]]
    vocabulary = {token: index for index, token in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _bytes(texts: Iterable[str], settings: TokenizerSettings, special: Sequence[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(settings) if settings.lowercase else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _normalizer(settings: TokenizerSettings) -> Any:
    from tokenizers import normalizers

    parts = [normalizers.NFKC()]
    return normalizers.Sequence(
        [*parts, *([normalizers.Lowercase()] if settings.lowercase else [])]
    )


def _frame(tokenizer: Tokenizer) -> None:
    """Put [CLS] before every text and [SEP] after it."""
    from tokenizers import processors

    first, last = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", first), ("[SEP]", last)],
    )
