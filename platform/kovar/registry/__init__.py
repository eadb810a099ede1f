"""Versions, aliases, history and artifacts. Imports neither Ray nor torch."""

from kovar.registry.card import card
from kovar.registry.card_page import card_html
from kovar.registry.difference import Change, Difference, diff
from kovar.registry.environment import current_environment, source_revision
from kovar.registry.evaluations import EvaluationRecord, StoredEvaluation, check_dataset
from kovar.registry.gates import BetterThanIncumbent, Gates, MetricBound
from kovar.registry.golden import (
    Golden,
    GoldenExample,
    GoldenExamples,
    GoldenNumbers,
    NumberedExample,
    check_golden,
    check_numbers,
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
from kovar.registry.predictions import (
    DatasetPredictions,
    Predictions,
    read_predictions,
    rows_digest,
    write_predictions,
)
from kovar.registry.registry import Registry
from kovar.registry.sharing import check_shared
from kovar.registry.version import (
    AliasMove,
    GateResult,
    GoldenResult,
    Model,
    Problem,
    Version,
    VersionSummary,
)

__all__ = [
    "AliasMove",
    "BaseFacts",
    "BetterThanIncumbent",
    "Change",
    "DataFacts",
    "DatasetPredictions",
    "Difference",
    "EnvironmentFacts",
    "EvaluationRecord",
    "FileEntry",
    "GateResult",
    "Gates",
    "Golden",
    "GoldenExample",
    "GoldenExamples",
    "GoldenNumbers",
    "GoldenResult",
    "Manifest",
    "MetricBound",
    "Model",
    "NumberedExample",
    "Parent",
    "Predictions",
    "Problem",
    "Registry",
    "Signature",
    "SourceFacts",
    "SplitFacts",
    "StoredEvaluation",
    "TensorFacts",
    "Version",
    "VersionFacts",
    "VersionSummary",
    "card",
    "card_html",
    "check_dataset",
    "check_golden",
    "check_numbers",
    "check_shared",
    "current_environment",
    "diff",
    "read_golden",
    "read_predictions",
    "rows_digest",
    "source_revision",
    "write_golden",
    "write_predictions",
]
