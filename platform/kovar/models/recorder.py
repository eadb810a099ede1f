"""The forward pass of any known architecture, recorded from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kovar.models.decoder import DecoderPass
from kovar.models.encoder import EncoderPass
from kovar.models.forward import ACTIVATIONS, Arithmetic, DeviceKind, Recording
from kovar.models.size import LoraShape, ModelSize


def record(
    config: Mapping[str, Any],
    size: ModelSize,
    *,
    length: int,
    arithmetic: Arithmetic,
    device: DeviceKind,
    training: bool,
    lora: LoraShape | None = None,
    predicted_share: float | None = None,
    recomputes: bool = False,
    several_documents: bool = False,
) -> Recording | None:
    """Record the forward pass of a classifier, a language model, or a decoder that reads a prompt.

    Args:
        config: content of config.json.
        size: what was found in it.
        length: tokens of each row.
        arithmetic: number formats.
        device: where it runs.
        training: whether dropout is active and a backward pass follows.
        lora: trains adapters in place of all weights.
        predicted_share: share of the tokens that a language model predicts; None for others.
        recomputes: whether layers are computed again in the backward pass.
        several_documents: whether rows hold several, which a mask keeps apart.

    Returns:
        None where the activation function is not known.
    """
    recording = Recording(length, arithmetic, device, training, lora, recomputes and training)
    kind = DecoderPass if size.decoder else EncoderPass
    one = kind(config, size, recording, predicted_share=predicted_share)
    if one.activation not in ACTIVATIONS:
        return None
    one.several_documents = several_documents
    one.run()
    return recording
