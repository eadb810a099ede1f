"""Base models and the classifiers built on them.

Checking (`resolve_base`, `check_max_length`) needs neither torch nor transformers; building does.
"""

from kovar.data.tokenizer import load_tokenizer
from kovar.models.architecture import ARCHITECTURES, Architecture
from kovar.models.base import (
    BaseModelFiles,
    ModelSpec,
    check_folder,
    check_max_length,
    resolve_base,
)
from kovar.models.classifier import (
    BuiltModel,
    build_classifier,
    build_for_training,
    load_classifier,
    save_model,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "BaseModelFiles",
    "BuiltModel",
    "ModelSpec",
    "build_classifier",
    "build_for_training",
    "check_folder",
    "check_max_length",
    "load_classifier",
    "load_tokenizer",
    "resolve_base",
    "save_model",
]
