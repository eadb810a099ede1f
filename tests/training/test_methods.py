"""Full, frozen, LoRA and DoRA: one spec, the same engine, and versions that can be served."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from safetensors import safe_open
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from in_process import send
from kovar.cli import app
from kovar.errors import MissingExtraError, ModelError, SpecError
from kovar.inference import AdapterBase, adapter_base, load_version
from kovar.models import BuiltModel, build_for_training, check_folder, load_adapter
from kovar.registry import Registry
from kovar.serving.replica import Replica
from kovar.serving.spec import ServingSpec
from kovar.serving.versions import BoundVersion
from kovar.training.method import Dora, Full, Lora, apply_method
from kovar.training.registration import base_name
from tiny import build_tiny_encoder
from tiny_run import run_spec, write_spec
from tiny_version import LABELS, environment_of, settings_in

TRAINING = {"epochs": 30, "max_tokens": 128, "learning_rate": 0.004, "checkpoint_every": 100}


@pytest.fixture
def built(tmp_path):
    base = check_folder(build_tiny_encoder(tmp_path / "encoder"), source="tiny")
    torch.manual_seed(0)
    return build_for_training(base, labels=LABELS)


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("pattern", ["embeddings", "bert.embeddings", "bert.embeddings.*"])
def test_a_frozen_module_is_named_with_or_without_the_models_prefix(built, pattern):
    names = trained_names(apply_method(built, Full(freeze=(pattern,))))
    assert names
    assert not [name for name in names if "embeddings" in name]


def test_a_pattern_that_nothing_matches_is_refused_with_names_that_exist(built):
    with pytest.raises(SpecError, match=r"embeddings\.word_embeddings"):
        apply_method(built, Full(freeze=("encoder.layers",)))


def test_what_only_a_worker_can_find_wrong_is_told_at_its_line(tmp_path):
    path = write_spec(tmp_path, method={"kind": "full", "freeze": ["head"]})
    with pytest.raises(SpecError, match=r"spec\.yaml:\d+: method\.freeze: no weight has such"):
        run_spec(path, settings_in(tmp_path))


def test_a_model_that_is_frozen_as_a_whole_is_refused(built):
    with pytest.raises(SpecError, match="nothing is left to train"):
        apply_method(built, Full(freeze=("*",)))


def test_an_adapter_for_a_model_without_linear_layers_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=1, n_layer=1, vocab_size=9))
    with pytest.raises(SpecError, match="gpt2 has none"):
        apply_method(BuiltModel(model), Lora())


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_an_adapter_trains_itself_and_the_head_alone(built, kind):
    names = trained_names(apply_method(built, kind(rank=2)))
    assert {name.split(".")[2] for name in names} == {"bert", "classifier"}
    assert all("lora_" in name for name in names if ".bert." in name)
    assert any("magnitude" in name for name in names) is (kind is Dora)


def test_target_modules_are_named_by_the_end_of_their_names(built):
    names = trained_names(apply_method(built, Lora(target_modules=("query",))))
    assert len([name for name in names if ".query.lora_A" in name]) == 2
    assert not [name for name in names if ".key." in name]


def test_a_target_that_no_layer_has_is_refused_with_those_there_are(built):
    with pytest.raises(SpecError, match="dense, key, query, value"):
        apply_method(built, Lora(target_modules=("q_proj",)))


@pytest.fixture(scope="module", params=["lora", "dora"])
def adapted(request, tmp_path_factory):
    """A finished run of each kind of adapter, merged as well."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = settings_in(folder)
    method = {"kind": request.param, "rank": 8, "merge": True}
    return settings, run_spec(write_spec(folder, method=method, training=TRAINING), settings)


def test_an_adapter_learns_and_both_its_versions_are_registered(adapted):
    settings, result = adapted
    assert result.metrics["accuracy"] >= 0.9
    with Registry.open(settings) as registry:
        assert registry.resolve("tiny@champion") == result.version
        (merged_of,) = result.version.manifest.parents
        assert (merged_of.role, merged_of.digest) == ("merged", result.adapter.digest)
        base = adapter_base(registry, result.adapter)
    assert base.model == "base-encoder"
    assert result.adapter.manifest.method in ("lora", "dora")


def test_the_adapter_is_registered_without_the_weights_of_its_base(adapted):
    _, result = adapted
    paths = [file.path for file in result.adapter.manifest.files]
    assert "model.safetensors" not in paths
    with safe_open(result.folder.model / "adapter_model.safetensors", "pt") as tensors:
        assert all("lora_" in name or "classifier" in name for name in tensors.keys())  # noqa: SIM118
    assert result.adapter.manifest.size_bytes < result.version.manifest.size_bytes


def test_the_adapter_on_its_base_answers_as_the_merged_version(adapted):
    settings, result = adapted
    texts = ["the film is lovely", "the plot is dull"]
    with Registry.open(settings) as registry:
        one, other = (
            load_version(registry, version, precision="fp32", require_golden=True).predict(texts)
            for version in (result.adapter, result.version)
        )
        base = registry.materialize(adapter_base(registry, result.adapter))
    assert [a.scores for a in one] == [pytest.approx(b.scores, abs=1e-6) for b in other]
    beside = AdapterBase.load(base, precision="fp32").adapt(result.folder.model).predict(texts)
    assert [a.scores for a in one] == [pytest.approx(b.scores, abs=1e-5) for b in beside]


def test_kovar_predict_answers_with_an_adapter(adapted):
    settings, result = adapted
    done = CliRunner().invoke(
        app,
        ["predict", f"tiny@{result.adapter.number}", "the film is lovely", "--json"],
        env=environment_of(settings),
    )
    assert json.loads(done.stdout)["predictions"][0]["label"] == "positive"


def test_a_replica_serves_an_adapter_on_its_base_while_the_database_is_away(adapted, tmp_path):
    settings, result = adapted
    with Registry.open(settings) as registry:
        base = adapter_base(registry, result.adapter)
    places = {"artifact_root": settings.artifact_root, "cache_dir": tmp_path}
    replica = Replica(ServingSpec(model="tiny"), [BoundVersion(result.adapter, base)], **places)
    app = replica.__serve_build_asgi_app__()
    response = asyncio.run(send(app, "POST", "/v1/predict", json={"inputs": ["it is lovely"]}))
    assert response.headers["x-kovar-digest"] == result.adapter.digest


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_itself_loads_the_adapter(adapted):
    from peft import PeftModel

    settings, result = adapted
    with Registry.open(settings) as registry:
        base = check_folder(registry.materialize(adapter_base(registry, result.adapter)), source="")
    torch.manual_seed(1)
    model = PeftModel.from_pretrained(
        build_for_training(base, labels=LABELS).model, result.folder.model
    ).eval()
    ours = load_adapter(result.folder.model, base=base.folder).eval()
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, ours(ids).logits, atol=1e-5)


def test_the_same_submission_returns_both_versions_again(adapted):
    settings, result = adapted
    again = run_spec(result.folder.root.parents[1] / "spec.yaml", settings)
    assert again.reused
    assert (again.version, again.adapter) == (result.version, result.adapter)


def test_an_adapter_on_another_base_is_refused(adapted, tmp_path):
    _, result = adapted
    from transformers import BertConfig, BertModel

    other = build_tiny_encoder(tmp_path / "other")
    wide = BertConfig.from_pretrained(other, hidden_size=64)
    BertModel(wide).save_pretrained(other)
    with pytest.raises(ModelError, match="does not fit its base"):
        load_adapter(result.folder.model, base=other)


def test_an_adapter_alone_is_no_model_to_start_from(adapted, tmp_path):
    settings, result = adapted
    spec = write_spec(tmp_path, model={"base": f"version:{result.adapter}"})
    with pytest.raises(ModelError, match="name the merged version"):
        run_spec(spec, settings)


def test_a_version_is_the_base_of_an_adapter_and_its_parent(tmp_path):
    settings = settings_in(tmp_path)
    first = run_spec(write_spec(tmp_path), settings)
    method = {"kind": "lora", "rank": 2}
    model = {"base": f"version:{first.version}"}
    result = run_spec(write_spec(tmp_path, method=method, model=model, name="more"), settings)
    assert [parent.digest for parent in result.version.manifest.parents] == [first.version.digest]
    with Registry.open(settings) as registry:
        assert load_version(registry, result.version, require_golden=True).labels == LABELS


def test_an_adapter_without_peft_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec = write_spec(tmp_path, method="lora")
    with pytest.raises(MissingExtraError, match=r'pip install "kovar-platform\[peft\]"'):
        run_spec(spec, settings_in(tmp_path))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("package:minilm-l6-v2", "base-minilm-l6-v2"),
        ("hub:Org/Name_v1@main", "base-name_v1"),
        ("models/My Encoder/", "base-my-encoder"),
    ],
)
def test_a_base_is_registered_under_the_last_part_of_its_source(source, name):
    assert base_name(source) == name
