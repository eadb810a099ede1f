"""Lineage, differences and derived artifacts of versions."""

import pytest

from kovar.errors import NotFoundError
from kovar.registry import GoldenResult, Parent, diff

ABSENT = "e" * 64


@pytest.fixture
def family(registry, folder, facts):
    """A base, two students of it and of a teacher elsewhere, and a merge of both."""

    def born(model, *parents, seed):
        links = tuple(Parent(role=role, digest=digest) for role, digest in parents)
        changed = facts.model_copy(update={"parents": links, "seed": seed})
        return registry.register(model, folder, facts=changed, run=f"run-{seed}", sweep="s-1")

    base = born("base", seed=1)
    left = born("left", ("base", base.digest), ("teacher", ABSENT), seed=2)
    right = born("right", ("base", base.digest), seed=3)
    return (
        base,
        left,
        right,
        born("merged", ("merged", left.digest), ("merged", right.digest), seed=4),
    )


def test_lineage_follows_parents_and_children(registry, family):
    base, left, right, merged = family
    found = registry.lineage(left)
    assert {node.digest for node in found.nodes} == {
        base.digest,
        left.digest,
        merged.digest,
        ABSENT,
    }
    assert len(registry.lineage(merged).nodes) == 5
    assert {edge.child for edge in registry.lineage(base).edges} >= {left.digest, right.digest}
    assert found.complete


def test_the_tree_names_versions_runs_and_what_is_not_here(registry, family):
    text = registry.lineage(family[1]).tree()
    assert text.splitlines()[0] == f"left@1 ({family[1].digest[:12]}, run run-2, sweep s-1)"
    assert f"─ base: base@1 ({family[0].digest[:12]}" in text
    assert f"─ teacher: not in this registry ({ABSENT[:12]})" in text
    assert "gave rise to:\n└─ merged: merged@1" in text


def test_the_mermaid_chart_has_every_node_and_edge(registry, family):
    chart = registry.lineage(family[3]).mermaid()
    assert chart.startswith("flowchart TD\n")
    assert chart.count("-->|merged|") == 2
    assert chart.count("-->|base|") == 2
    assert f'v{family[0].digest[:16]}["base@1 (' in chart


def test_a_version_alone_is_its_own_tree(registry, version):
    assert registry.lineage(version).tree() == f"reviews@1 ({version.digest[:12]})"


def test_a_deleted_relative_is_marked(registry, family):
    registry.delete("merged", 1, reason="clean up")
    assert ", deleted)" in registry.lineage(family[0]).tree()


def test_diff_shows_spec_metrics_data_files_and_facts(registry, folder, facts, version):
    (folder / "config.json").unlink()
    (folder / "tokenizer" / "vocab.txt").write_text("[PAD]\n")
    (folder / "a.json").write_text("{}")
    changed = facts.model_copy(
        update={
            "seed": 4,
            "spec": {"kind": "finetune", "learning_rate": 1e-4},
            "metrics": {"evaluation": {"accuracy": 0.9}},
        }
    )
    found = diff(version, registry.register("reviews", folder, facts=changed))
    assert (found.before, found.after) == ("reviews@1", "reviews@2")
    assert [(c.path, c.before, c.after) for c in found.spec] == [("learning_rate", 5e-5, 1e-4)]
    assert [(c.path, c.before, c.after) for c in found.metrics] == [
        ("evaluation.accuracy", 0.84, 0.9),
        ("evaluation.macro_f1", 0.83, None),
    ]
    assert [c.path for c in found.files] == ["a.json", "config.json", "tokenizer/vocab.txt"]
    assert [(c.path, c.after) for c in found.facts] == [("seed", 4)]
    assert found.data == ()


def test_a_version_does_not_differ_from_itself(version):
    assert not any(diff(version, version).sections().values())


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "graph.json").write_text('{"opset": 17}')
    return folder


def test_a_derived_artifact_hangs_on_its_version_and_does_not_change_it(registry, version, export):
    golden = GoldenResult(
        runtime="onnxruntime", chip="cpu", passed=True, difference=1e-6, tolerance=1e-3
    )
    made = registry.derive(
        version, export, kind="onnx", runtime="onnxruntime", golden=golden, settings={"opset": 17}
    )
    assert registry.derived(version) == (made,)
    assert (made.golden, made.manifest.version) == (golden, version.digest)
    assert registry.version("reviews", 1) == version
    folder = registry.materialize_derived(made)
    assert (folder / "graph.json").read_text() == '{"opset": 17}'


def test_an_equal_derived_artifact_is_one(registry, version, export):
    first = registry.derive(version, export, kind="onnx", runtime="onnxruntime")
    again = registry.derive(version, export, kind="onnx", runtime="onnxruntime")
    other = registry.derive(version, export, kind="onnx", runtime="onnxruntime", chip="L4")
    assert first == again
    assert registry.derived(version) == (first, other)


def test_nothing_is_derived_from_a_deleted_version(registry, version, export):
    registry.delete("reviews", 1, reason="clean up")
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.derive(version, export, kind="onnx", runtime="onnxruntime")


def test_verify_looks_at_derived_artifacts(settings, registry, version, export):
    made = registry.derive(version, export, kind="onnx", runtime="onnxruntime")
    (file,) = made.manifest.files
    registry._files.remove(f"sha256/{file.sha256[:2]}/{file.sha256}")
    (problem,) = registry.verify()
    assert problem.path == f"derived/{made.digest[:12]}/graph.json"
