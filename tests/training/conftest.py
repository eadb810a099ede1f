"""Engines on a tiny encoder and a hundred made-up reviews, without Ray and without a run folder."""

from __future__ import annotations

import pytest
import torch

from kovar.data import DataSpec, prepare_dataset
from kovar.models import check_folder
from kovar.precision import ResolvedPrecision
from kovar.training.engine import Engine
from kovar.training.method import Full, apply_method
from kovar.training.tasks import TASKS
from tiny import build_tiny_encoder
from tiny_run import write_reviews

FULL = Full()
FP32 = ResolvedPrecision("fp32", "float32", False, False, "test")


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory):
    """A base model, and the reviews tokenized for it."""
    folder = tmp_path_factory.mktemp("engine")
    base = check_folder(build_tiny_encoder(folder / "encoder"), source="tiny")
    write_reviews(folder / "reviews.csv")
    spec = DataSpec(source="reviews.csv", evaluation=24, max_length=32)
    dataset = prepare_dataset(
        spec, tokenizer_dir=base.folder, cache_dir=folder / "cache", base_dir=folder
    )
    return base, dataset


@pytest.fixture(scope="session")
def engines(tiny_inputs):
    """Return a function that builds an engine on one rank."""
    base, dataset = tiny_inputs

    task_of_all = TASKS["text-classification"]

    def build(settings, *, precision=FP32, events=None, task=task_of_all, method=FULL, **options):
        torch.manual_seed(settings.seed)
        built = task.build_model(base, dataset, dropout=settings.dropout)
        return Engine(
            apply_method(built, method),
            dataset,
            task=task,
            settings=settings,
            precision=precision,
            device=torch.device("cpu"),
            report=lambda event, **fields: (
                events.append((event, fields)) if events is not None else None
            ),
            **options,
        )

    return build
