"""A registry that only one node reaches is refused before a run on several."""

from pathlib import Path

import pytest

from kovar.errors import SettingsError
from kovar.registry import check_shared
from kovar.registry.sharing import read_mounts
from kovar.settings import Settings, load_settings

MOUNTS = {
    "/": "ext4",
    "/nfs": "nfs4",
    "/nfs/scratch": "xfs",
    "/bucket": "fuse.gcsfuse",
    "/proc/fuse": "fusectl",
}
POSTGRESQL = "postgresql+psycopg://kovar@db/kovar"


def settings_of(database: str, artifacts: str, runs: str) -> Settings:
    return Settings(
        database_url=database,
        artifact_root=artifacts,
        runs_dir=Path(runs),
        cache_dir=Path("/cache"),
    )


@pytest.mark.parametrize(
    ("database", "artifacts", "runs"),
    [
        (POSTGRESQL, "s3://models", "/nfs/runs"),
        (POSTGRESQL, "gs://models/kovar", "/bucket/runs"),
        (POSTGRESQL, "/nfs/artifacts", "/nfs/runs"),
        (POSTGRESQL, "/bucket", "/bucket"),
    ],
)
def test_places_that_all_nodes_reach_are_accepted(database, artifacts, runs):
    check_shared(settings_of(database, artifacts, runs), num_nodes=8, mounts=MOUNTS)


@pytest.mark.parametrize(
    ("database", "artifacts", "runs", "field"),
    [
        ("sqlite:////home/a/registry.db", "s3://models", "/nfs/runs", "database_url"),
        ("sqlite:////nfs/registry.db", "s3://models", "/nfs/runs", "database_url"),
        (POSTGRESQL, "/home/a/artifacts", "/nfs/runs", "artifact_root"),
        (POSTGRESQL, "/nfs/scratch/artifacts", "/nfs/runs", "artifact_root"),
        (POSTGRESQL, "/nfsx/artifacts", "/nfs/runs", "artifact_root"),
        (POSTGRESQL, "/proc/fuse/artifacts", "/nfs/runs", "artifact_root"),
        (POSTGRESQL, "s3://models", "/home/a/runs", "runs_dir"),
    ],
)
def test_a_place_of_one_node_is_refused_by_name(database, artifacts, runs, field):
    with pytest.raises(SettingsError, match="the run uses 2 nodes") as caught:
        check_shared(settings_of(database, artifacts, runs), num_nodes=2, mounts=MOUNTS)
    assert caught.value.field == field
    assert f"set KOVAR_{field.upper()}" in str(caught.value)


def test_one_node_may_keep_everything_to_itself():
    settings = settings_of("sqlite:////a.db", "/a", "/r")
    check_shared(settings, num_nodes=1, mounts=MOUNTS)


def test_this_machine_has_a_root_file_system():
    assert read_mounts()["/"]


def test_simulated_nodes_share_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("KOVAR_SIMULATED", "1")
    check_shared(load_settings({"KOVAR_HOME": str(tmp_path)}), num_nodes=4, mounts={"/": "ext4"})
