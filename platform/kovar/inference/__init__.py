"""Runtimes that execute a version, and the batcher in front of them."""

from kovar.inference.adapter_base import AdapterBase
from kovar.inference.answering import Answer, Timing
from kovar.inference.batcher import Batcher, BatchLimits, Item, Taken
from kovar.inference.choice import MAX_ACCURACY_LOSS, Wish, needed_exports, possible_exports
from kovar.inference.classifier_runtime import ClassifierRuntime
from kovar.inference.exports import Export, ExportBuilder, ExportForm
from kovar.inference.load import Load, LoadMeter
from kovar.inference.loader import (
    Loaded,
    adapter_base,
    load_any,
    load_runtime,
    load_version,
)
from kovar.inference.memory import ServingMemory, estimate_serving
from kovar.inference.onnx_runtime import OnnxRuntime
from kovar.inference.openvino_runtime import OpenVinoRuntime
from kovar.inference.runner import BatchRecord, BatchRunner
from kovar.inference.runtime import (
    Attribution,
    Encoded,
    Prediction,
    Runtime,
    RuntimeName,
    RuntimePrecision,
    Text,
    plan_batches,
)
from kovar.inference.sharing import share_weights
from kovar.inference.torch_runtime import TorchRuntime
from kovar.inference.torch_scorer import TextLoss, TorchScorer
from kovar.inference.torch_tagger import Tagging, TorchTagger

__all__ = [
    "MAX_ACCURACY_LOSS",
    "AdapterBase",
    "Answer",
    "Attribution",
    "BatchLimits",
    "BatchRecord",
    "BatchRunner",
    "Batcher",
    "ClassifierRuntime",
    "Encoded",
    "Export",
    "ExportBuilder",
    "ExportForm",
    "Item",
    "Load",
    "LoadMeter",
    "Loaded",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Prediction",
    "Runtime",
    "RuntimeName",
    "RuntimePrecision",
    "ServingMemory",
    "Tagging",
    "Taken",
    "Text",
    "TextLoss",
    "Timing",
    "TorchRuntime",
    "TorchScorer",
    "TorchTagger",
    "Wish",
    "adapter_base",
    "estimate_serving",
    "load_any",
    "load_runtime",
    "load_version",
    "needed_exports",
    "plan_batches",
    "possible_exports",
    "share_weights",
]
