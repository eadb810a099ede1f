"""Every file under serve/ is one that `serve deploy` and `kovar.serving.app:build` accept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kovar.serving import read_args

FILES = sorted((Path(__file__).parents[2] / "serve").glob("*.yaml"))


def test_there_are_files_to_check():
    assert "movie-sentiment.yaml" in [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_serve_accepts_the_file_and_no_key_of_it_is_ignored(path):
    from ray.serve.schema import ServeDeploySchema

    document = yaml.safe_load(path.read_text())
    accepted = ServeDeploySchema.model_validate(document).model_dump(mode="json")
    assert set(document) <= set(accepted)
    for given, read in zip(document["applications"], accepted["applications"], strict=True):
        assert given.items() <= read.items()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_endpoint_listens_on_loopback_alone(path):
    assert yaml.safe_load(path.read_text())["http_options"]["host"] == "127.0.0.1"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_arguments_of_every_application_are_valid(path):
    for application in yaml.safe_load(path.read_text())["applications"]:
        assert application["import_path"] == "kovar.serving.app:build"
        assert read_args(application["args"]).model == application["name"]
