"""Whatever stands in a cluster file, the linter answers with findings, never with a traceback."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kovar.resources.lint import Finding, lint_cluster, unfilled

ROOT = Path(__file__).parents[2]
GOOD = {
    name: yaml.safe_load((ROOT / name).read_text())
    for name in ("cluster.yaml", "clusters/aws.yaml")
} | {
    "clusters/kuberay/raycluster.yaml": next(
        yaml.safe_load_all((ROOT / "clusters/kuberay/raycluster.yaml").read_text())
    )
}
STRANGE = [None, True, -1, 0, 3.5, "", "x", "!", "a,b", [], [None], [[]], {}, {"a": 1}, {3: [4]}]


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        children = value.items()
    else:
        children = enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_value_of_any_other_type_is_survived(name, data):
    spoiled = copy.deepcopy(GOOD[name])
    path = data.draw(st.sampled_from([p for p in places(GOOD[name]) if p]))
    parent = spoiled
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = data.draw(st.sampled_from(STRANGE))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cluster.yaml"
        file.write_text(yaml.safe_dump(spoiled))
        found = (*lint_cluster(file), *unfilled(file))
    assert all(isinstance(one, Finding) and one.message and one.fix for one in found)
