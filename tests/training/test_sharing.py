"""A run on several nodes needs a registry that all of them reach."""

import pytest

from kovar.errors import SettingsError
from kovar.resources import Cluster, NodeType
from tiny_run import run_spec, write_spec
from tiny_version import settings_in


def test_a_run_on_two_nodes_is_refused_before_anything_is_made(tmp_path):
    worker = {"kind": "cpu", "cpus": 3}
    path = write_spec(tmp_path, resources={"num_workers": 2, "worker": worker})
    settings = settings_in(tmp_path / "home")
    node_types = [NodeType("worker", cpus=4, min_count=2, max_count=2)]
    with pytest.raises(SettingsError, match="database_url: an SQLite database belongs to one"):
        run_spec(path, settings, cluster=Cluster(tuple(node_types)))
    assert not settings.runs_dir.exists()
