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


def test_the_bound_of_the_cache_is_a_size(tmp_path):
    (tmp_path / "settings.yaml").write_text("cache_max_bytes: 2GiB\n")
    assert load_settings({"KOVAR_HOME": str(tmp_path)}).cache_max_bytes == 2 << 30
    changed = {"KOVAR_HOME": str(tmp_path), "KOVAR_CACHE_MAX_BYTES": "500"}
    assert load_settings(changed).cache_max_bytes == 500
    with pytest.raises(SettingsError, match="KOVAR_CACHE_MAX_BYTES: a size is"):
        load_settings(changed | {"KOVAR_CACHE_MAX_BYTES": "much"})


def test_keys_and_webhooks_come_from_the_file_or_from_the_environment(tmp_path):
    (tmp_path / "settings.yaml").write_text("trusted_keys: [/keys]\nwebhook_urls: [http://a/b]\n")
    stored = load_settings({"KOVAR_HOME": str(tmp_path)})
    assert (stored.trusted_keys, stored.webhook_urls) == ((Path("/keys"),), ("http://a/b",))
    given = {"KOVAR_TRUSTED_KEYS": "/a.pub:/b.pub", "KOVAR_WEBHOOK_URLS": "http://c http://d"}
    changed = load_settings({"KOVAR_HOME": str(tmp_path)} | given)
    assert changed.trusted_keys == (Path("/a.pub"), Path("/b.pub"))
    assert changed.webhook_urls == ("http://c", "http://d")


def test_the_secret_of_the_webhooks_is_not_shown(tmp_path):
    settings = load_settings({"KOVAR_HOME": str(tmp_path), "KOVAR_WEBHOOK_SECRET": "hush"})
    assert settings.webhook_secret == "hush"
    assert "hush" not in repr(settings)


def test_the_bounds_of_waiting_are_seconds_in_the_file_and_in_variables(tmp_path):
    (tmp_path / "settings.yaml").write_text("infeasible_timeout_s: 5\nplacement_timeout_s: 60\n")
    environ = {"KOVAR_HOME": str(tmp_path), "KOVAR_PLACEMENT_TIMEOUT_S": "90.5"}
    settings = load_settings(environ)
    assert (settings.infeasible_timeout_s, settings.placement_timeout_s) == (5.0, 90.5)
    for wrong in ("soon", "0", "nan"):
        with pytest.raises(SettingsError, match=r"KOVAR_PLACEMENT_TIMEOUT_S: must be a number"):
            load_settings(environ | {"KOVAR_PLACEMENT_TIMEOUT_S": wrong})
