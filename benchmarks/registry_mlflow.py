"""MLflow's side of benchmarks/registry.py: answers steps that it is asked over standard input.

usage: python benchmarks/registry_mlflow.py FOLDER

Runs in the environment that has MLflow and, for `log_model`, torch and transformers. A line of
input is `[step, argument]`; a line of output is `{"seconds": …, "value": …}`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

NAME = "bench"


class Steps:
    """The calls that a user of MLflow makes, with a store in SQLite.

    Args:
        root: where the store and the artifacts are.
    """

    def __init__(self, root: str) -> None:
        mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
        self.root = Path(root)
        self.client = MlflowClient()
        self.experiment = self.client.create_experiment(
            NAME, artifact_location=f"file://{root}/artifacts"
        )
        mlflow.set_experiment(NAME)
        self.client.create_registered_model(NAME)
        self.pipeline: Any = None

    def register(self, folder: str) -> str:
        """Log a folder and make it a version: the least that MLflow can do."""
        run = self.client.create_run(self.experiment).info
        self.client.log_artifacts(run.run_id, folder, "model")
        source = f"{run.artifact_uri}/model"
        return str(self.client.create_model_version(NAME, source, run.run_id).version)

    def resolve(self, _: object) -> str:
        """Return the local path of what the alias points at."""
        found = self.client.get_model_version_by_alias(NAME, "champion")
        return str(mlflow.artifacts.download_artifacts(found.source))

    def promote(self, number: str) -> None:
        """Point the alias at a version."""
        self.client.set_registered_model_alias(NAME, "champion", number)

    def make(self, seed: int) -> str:
        """Build a pipeline of 22.7 million random parameters (90 MB); return its folder."""
        import torch
        from transformers import (
            BertConfig,
            BertForSequenceClassification,
            BertTokenizerFast,
            pipeline,
        )

        torch.manual_seed(seed)
        vocabulary = self.root / "vocab.txt"
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary.write_text("\n".join(special + [f"word{n}" for n in range(30_517)]))
        config = BertConfig(
            vocab_size=30_522,
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
        )
        self.pipeline = pipeline(
            "text-classification",
            model=BertForSequenceClassification(config),
            tokenizer=BertTokenizerFast(vocab_file=str(vocabulary)),
            device="cpu",
        )
        folder = self.root / f"made-{seed}"
        self.pipeline.save_pretrained(str(folder))
        return str(folder)

    def save(self, folder: str) -> None:
        """Only write the files of the pipeline, which `log_model` does, too."""
        self.pipeline.save_pretrained(folder)

    def log_model(self, _: object) -> None:
        """Log and register the pipeline.

        The requirements are given: inferring them, MLflow's default, needs torchvision even for
        text.
        """
        from mlflow import transformers

        with mlflow.start_run():
            transformers.log_model(
                self.pipeline,
                name="model",
                registered_model_name=NAME,
                pip_requirements=["transformers", "torch"],
            )


def can_log_model() -> bool:
    """Whether MLflow's transformers flavor works here."""
    try:
        import torch  # noqa: F401
        from mlflow import transformers  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MLflow prints is no answer
    versions: dict[str, str | None] = {"mlflow": mlflow.__version__, "transformers": None}
    steps = Steps(sys.argv[1])
    if can_log_model():
        import transformers

        versions["transformers"] = transformers.__version__
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        name, argument = json.loads(line)
        step: Callable[[Any], object] = getattr(steps, name)
        with contextlib.redirect_stdout(sys.stderr):
            start = time.perf_counter()
            value = step(argument)
            seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "value": str(value)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
