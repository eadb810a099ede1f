"""Settings: defaults under ~/.kovar, then the file, then the environment."""

import os
from pathlib import Path

import pytest

from kovar.errors import SettingsError
from kovar.settings import ensure_writable, load_settings


def test_defaults_live_under_the_home_folder_and_create_nothing(tmp_path):
    settings = load_settings({"KOVAR_HOME": str(tmp_path / "home")})
    assert settings.database_url == f"sqlite:///{tmp_path}/home/registry.db"
    assert settings.runs_dir == tmp_path / "home/runs"
    assert not (tmp_path / "home").exists()


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    (tmp_path / "settings.yaml").write_text("artifact_root: s3://models\nruns_dir: /data/runs\n")
    settings = load_settings({"KOVAR_HOME": str(tmp_path), "KOVAR_RUNS_DIR": "/elsewhere"})
    assert settings.artifact_root == "s3://models"
    assert settings.runs_dir == Path("/elsewhere")
    assert settings.cache_dir == tmp_path / "cache"


def test_a_misspelled_setting_is_reported_with_its_line(tmp_path):
    (tmp_path / "settings.yaml").write_text("runs_dri: /data\n")
    with pytest.raises(SettingsError, match=r'settings.yaml:1: runs_dri(.|\n)*"runs_dir"'):
        load_settings({"KOVAR_HOME": str(tmp_path)})


def test_a_named_settings_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        load_settings({"KOVAR_SETTINGS": str(tmp_path / "absent.yaml")})


def test_a_database_that_is_not_a_url_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="KOVAR_DATABASE_URL: not a database URL"):
        load_settings({"KOVAR_HOME": str(tmp_path), "KOVAR_DATABASE_URL": "registry.db"})


def test_a_folder_that_cannot_be_written_is_named_with_the_variable_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"runs_dir: cannot write here(.|\n)*KOVAR_RUNS_DIR"):
        ensure_writable(tmp_path / "file" / "runs", field="runs_dir")


def test_a_writable_folder_is_created_and_left_empty(tmp_path):
    folder = ensure_writable(tmp_path / "a" / "b", field="runs_dir")
    assert os.listdir(folder) == []  # noqa: PTH208


def test_a_misspelled_variable_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match=r'KOVAR_RUN_DIR: unknown(.|\n)*"KOVAR_RUNS_DIR"'):
        load_settings({"KOVAR_HOME": str(tmp_path), "KOVAR_RUN_DIR": "/data"})
