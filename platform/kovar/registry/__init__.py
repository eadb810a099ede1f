"""Versions, aliases, history and artifacts. Imports neither Ray nor torch."""

from kovar.registry.card import card
from kovar.registry.card_page import card_html
from kovar.registry.environment import current_environment, source_revision
from kovar.registry.golden import (
    GoldenExample,
    GoldenExamples,
    check_golden,
    read_golden,
    write_golden,
)
from kovar.registry.manifest import (
    BaseFacts,
    DataFacts,
    EnvironmentFacts,
    FileEntry,
    Manifest,
    Parent,
    Signature,
    SourceFacts,
    SplitFacts,
    TensorFacts,
    VersionFacts,
)
from kovar.registry.registry import Registry
from kovar.registry.sharing import check_shared
from kovar.registry.version import AliasMove, Model, Problem, Version

__all__ = [
    "AliasMove",
    "BaseFacts",
    "DataFacts",
    "EnvironmentFacts",
    "FileEntry",
    "GoldenExample",
    "GoldenExamples",
    "Manifest",
    "Model",
    "Parent",
    "Problem",
    "Registry",
    "Signature",
    "SourceFacts",
    "SplitFacts",
    "TensorFacts",
    "Version",
    "VersionFacts",
    "card",
    "card_html",
    "check_golden",
    "check_shared",
    "current_environment",
    "read_golden",
    "source_revision",
    "write_golden",
]
