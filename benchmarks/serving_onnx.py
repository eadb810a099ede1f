"""The classifier that BentoML and MLServer serve: a tokenizer and ONNX Runtime, and no Kovar.

Runs in their environments, from a folder that holds `model.onnx` and `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Classifier:
    """Texts in, probabilities out.

    Args:
        folder: where the files are; the tokenizer's truncates as in training.
        threads: of ONNX Runtime.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_padding(pad_id=self.tokenizer.token_to_id("[PAD]"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # As Kovar sets it: threads that spin take the cores that HTTP needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [one.name for one in self.session.get_inputs()]

    def scores(self, texts: Sequence[str]) -> Any:
        """Return the probability of every label, float32, shape (texts, labels)."""
        encodings = self.tokenizer.encode_batch_fast(list(texts))
        tensors = {
            "input_ids": np.array([one.ids for one in encodings], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encodings], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encodings], np.int64),
        }
        feeds = {name: tensors[name] for name in self.inputs}
        (logits,) = self.session.run(["logits"], feeds)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
