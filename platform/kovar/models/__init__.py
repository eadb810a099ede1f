"""Base models and the classifiers built on them.

Checking (`resolve_base`, `check_max_length`) and counting (`model_size`) need neither torch nor
transformers; building does.
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
from kovar.models.classifier import build_classifier, load_classifier, save_model
from kovar.models.known_config import known_config
from kovar.models.size import LoraShape, ModelSize, model_size

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "BaseModelFiles",
    "LoraShape",
    "ModelSize",
    "ModelSpec",
    "build_classifier",
    "check_folder",
    "check_max_length",
    "known_config",
    "load_classifier",
    "load_tokenizer",
    "model_size",
    "resolve_base",
    "save_model",
]
