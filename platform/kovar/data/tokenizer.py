"""Loading `tokenizer.json` with the Rust library alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovar.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model folder, without the truncation and padding stored in it.

    Raises:
        ModelError: the file is missing or damaged.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise ModelError(
            f"the model folder has no {TOKENIZER_FILE}",
            file=folder,
            hint="save the model's fast tokenizer into the folder "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(folder))",
        )
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as problem:  # the library raises plain Exception
        raise ModelError(
            f"damaged tokenizer: {problem}", file=path, hint="fetch the model again"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
