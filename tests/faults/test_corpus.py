"""The corpus of seeded faults: each is reported where it is, and nothing else is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.cluster_faults import FAULTS as CLUSTER_FAULTS
from faults.fault import REPOSITORY, Fault, first_changed_line, reports, seed
from faults.harmless import CHANGES, Change
from faults.manifest_faults import FAULTS as MANIFEST_FAULTS
from faults.spec_faults import FAULTS as SPEC_FAULTS
from kovar.resources.lint import lint_cluster

FAULTS = (*SPEC_FAULTS, *CLUSTER_FAULTS, *MANIFEST_FAULTS)
CLUSTERS = sorted([REPOSITORY / "cluster.yaml", *(REPOSITORY / "clusters").rglob("*.yaml")])


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # where `ray up` runs: file_mounts are relative to it


def test_the_corpus_is_large_and_no_fault_is_in_it_twice():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 120
    assert len({fault.edit((REPOSITORY / fault.file).read_text()) for fault in FAULTS}) == len(
        FAULTS
    )
    assert len(CHANGES) >= 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_reported_where_it_is(fault: Fault, tmp_path: Path):
    found = reports(fault.check, seed(fault, tmp_path))
    line = first_changed_line(fault)
    assert any(
        one.field == fault.field
        and fault.says in one.text
        and (fault.elsewhere or one.line == line)
        for one in found
    ), found


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_harmless_change_is_not_reported(change: Change, tmp_path: Path):
    assert reports(change.check, seed(change, tmp_path)) == []


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_nothing_is_reported_of_a_good_file(path: Path):
    assert lint_cluster(path) == ()
