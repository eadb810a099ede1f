"""Runtimes that execute a version, and the batcher in front of them."""

from kovar.inference.answering import Answer, Timing
from kovar.inference.batcher import Batcher, BatchLimits, Item, Taken
from kovar.inference.load import Load, LoadMeter
from kovar.inference.loader import (
    Loaded,
    RuntimeName,
    adapter_base,
    load_any,
    load_runtime,
    load_version,
)
from kovar.inference.memory import ServingMemory, estimate_serving
from kovar.inference.runner import BatchRecord, BatchRunner
from kovar.inference.runtime import Encoded, Prediction, Runtime, Text, plan_batches
from kovar.inference.torch_runtime import TorchRuntime
from kovar.inference.torch_scorer import TextLoss, TorchScorer
from kovar.inference.torch_tagger import Tagging, TorchTagger

__all__ = [
    "Answer",
    "BatchLimits",
    "BatchRecord",
    "BatchRunner",
    "Batcher",
    "Encoded",
    "Item",
    "Load",
    "LoadMeter",
    "Loaded",
    "Prediction",
    "Runtime",
    "RuntimeName",
    "ServingMemory",
    "Tagging",
    "Taken",
    "Text",
    "TextLoss",
    "Timing",
    "TorchRuntime",
    "TorchScorer",
    "TorchTagger",
    "adapter_base",
    "estimate_serving",
    "load_any",
    "load_runtime",
    "load_version",
    "plan_batches",
]
