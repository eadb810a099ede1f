"""Base models and the classifiers built on them.

Checking (`resolve_base`, `check_max_length`) and counting (`model_size`) need neither torch nor
transformers; building does.
"""

from kovar.data.tokenizer import load_tokenizer
from kovar.models.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_adapter,
    check_peft,
    is_adapter,
    load_adapter,
    put_adapter,
    save_adapter,
)
from kovar.models.architecture import ARCHITECTURES, DECODERS, Architecture, find_architecture
from kovar.models.base import (
    BaseModelFiles,
    ModelSpec,
    check_folder,
    check_max_length,
    check_positions,
    model_files,
    resolve_base,
)
from kovar.models.classifier import (
    MULTILABEL,
    BuiltModel,
    build_classifier,
    build_for_training,
    load_classifier,
    save_model,
)
from kovar.models.dropout import quicken_dropout
from kovar.models.embedding import quicken_embeddings
from kovar.models.head import Head, head_of, model_class
from kovar.models.known_config import known_config
from kovar.models.language import (
    build_language_model,
    save_language_model,
    select_targets,
)
from kovar.models.scratch import scratch_base
from kovar.models.shared_base import SharedBase
from kovar.models.size import LoraShape, ModelSize, model_size
from kovar.models.varlen import first_position, read_rows_in_line, varlen_obstacle

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "ARCHITECTURES",
    "DECODERS",
    "MULTILABEL",
    "Architecture",
    "BaseModelFiles",
    "BuiltModel",
    "Head",
    "LoraShape",
    "ModelSize",
    "ModelSpec",
    "SharedBase",
    "build_classifier",
    "build_for_training",
    "build_language_model",
    "check_adapter",
    "check_folder",
    "check_max_length",
    "check_peft",
    "check_positions",
    "find_architecture",
    "first_position",
    "head_of",
    "is_adapter",
    "known_config",
    "load_adapter",
    "load_classifier",
    "load_tokenizer",
    "model_class",
    "model_files",
    "model_size",
    "put_adapter",
    "quicken_dropout",
    "quicken_embeddings",
    "read_rows_in_line",
    "resolve_base",
    "save_adapter",
    "save_language_model",
    "save_model",
    "scratch_base",
    "select_targets",
    "varlen_obstacle",
]
