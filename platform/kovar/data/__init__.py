"""Labelled texts: sources, the split, the tokenized cache, and batches.

The order of work is `DataSpec` → `load_table` → `prepare_dataset` → `make_batches` → `deal` →
`collate`. Reading is done once for all workers, batches are the same for every number of workers.
"""

from kovar.data.batches import (
    LADDER,
    Batch,
    EpochBatches,
    bucket_length,
    collate,
    cut_rows,
    deal,
    make_batches,
)
from kovar.data.dataset import (
    Split,
    TokenizedDataset,
    TrainingTexts,
    prepare_dataset,
    training_texts,
)
from kovar.data.facts import DataFacts, UnknownData, read_facts
from kovar.data.layouts import LAYOUTS, LayoutName
from kovar.data.package import PACKAGES, Package, fetch_package, find_package
from kovar.data.progress import Progress
from kovar.data.source import Source, load_table
from kovar.data.spec import DataSpec, EvaluationSource
from kovar.data.split import split_rows
from kovar.data.tokenizer import load_tokenizer
from kovar.data.vocabulary import TokenizerSettings

__all__ = [
    "LADDER",
    "LAYOUTS",
    "PACKAGES",
    "Batch",
    "DataFacts",
    "DataSpec",
    "EpochBatches",
    "EvaluationSource",
    "LayoutName",
    "Package",
    "Progress",
    "Source",
    "Split",
    "TokenizedDataset",
    "TokenizerSettings",
    "TrainingTexts",
    "UnknownData",
    "bucket_length",
    "collate",
    "cut_rows",
    "deal",
    "fetch_package",
    "find_package",
    "load_table",
    "load_tokenizer",
    "make_batches",
    "prepare_dataset",
    "read_facts",
    "split_rows",
    "training_texts",
]
