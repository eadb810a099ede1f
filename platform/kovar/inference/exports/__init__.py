"""Exports of a version: made, checked, kept beside it in the registry."""

from kovar.inference.exports.builder import ExportBuilder
from kovar.inference.exports.form import (
    EXPORTS,
    Accuracy,
    Export,
    ExportForm,
    ExportName,
    is_export,
)
from kovar.inference.exports.labeled import LabeledTexts, labeled_texts

__all__ = [
    "EXPORTS",
    "Accuracy",
    "Export",
    "ExportBuilder",
    "ExportForm",
    "ExportName",
    "LabeledTexts",
    "is_export",
    "labeled_texts",
]
