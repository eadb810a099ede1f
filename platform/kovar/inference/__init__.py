"""Runtimes that execute a version, and the batcher in front of them."""

from kovar.inference.batcher import Batcher, BatchLimits, Item, Taken
from kovar.inference.loader import RuntimeName, adapter_base, load_runtime, load_version
from kovar.inference.memory import ServingMemory, estimate_serving
from kovar.inference.runner import BatchRunner
from kovar.inference.runtime import Encoded, Prediction, Runtime, plan_batches
from kovar.inference.torch_runtime import TorchRuntime

__all__ = [
    "BatchLimits",
    "BatchRunner",
    "Batcher",
    "Encoded",
    "Item",
    "Prediction",
    "Runtime",
    "RuntimeName",
    "ServingMemory",
    "Taken",
    "TorchRuntime",
    "adapter_base",
    "estimate_serving",
    "load_runtime",
    "load_version",
    "plan_batches",
]
