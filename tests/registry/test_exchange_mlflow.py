"""Versions to a real MLflow store and back."""

import json
import shutil

import pytest

from kovar.errors import DamagedArtifactError, NotFoundError, UnsafeArtifactError, UserError
from kovar.registry import Registry
from kovar.registry.exchange import export_mlflow, import_mlflow
from kovar.settings import load_settings

# MLflow's own code, under the newest SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An SQLite store of MLflow without content; making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_uri(tmp_path, empty_store) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def client(tracking_uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@pytest.fixture
def elsewhere(tmp_path):
    with Registry.open(load_settings({"KOVAR_HOME": str(tmp_path / "elsewhere")})) as registry:
        yield registry


def test_an_exported_version_comes_back_with_its_digest(registry, version, tracking_uri, elsewhere):
    made = export_mlflow(registry, version, tracking_uri)
    back = import_mlflow(elsewhere, made.uri, tracking_uri)
    assert (made.uri, back.model) == ("models:/reviews/1", "reviews")
    assert back.digest == version.digest
    assert elsewhere.verify() == []


def test_a_file_store_works_too(registry, version, tmp_path, elsewhere, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    folder = (tmp_path / "mlruns").as_uri()
    made = export_mlflow(registry, version, folder)
    assert import_mlflow(elsewhere, made.uri, folder).digest == version.digest
    assert list((tmp_path / "empty").iterdir()) == []


def test_mlflow_shows_metrics_parameters_and_the_digest(registry, version, tracking_uri, client):
    made = export_mlflow(registry, version, tracking_uri)
    run = client.get_run(made.run_id).data
    assert run.metrics == {"evaluation.accuracy": 0.84, "evaluation.macro_f1": 0.83}
    assert run.params["spec.learning_rate"] == "5e-05"
    assert client.get_model_version("reviews", "1").tags["kovar.digest"] == version.digest
    names = {item.path for item in client.list_artifacts(made.run_id, "model")}
    assert {"model/MLmodel", "model/model.safetensors", "model/kovar-manifest.json"} <= names


def test_exporting_again_returns_what_is_there(registry, version, tracking_uri, client):
    first = export_mlflow(registry, version, tracking_uri)
    assert export_mlflow(registry, version, tracking_uri) == first
    assert len(client.search_model_versions("name = 'reviews'")) == 1


def test_an_alias_of_mlflow_names_a_version(registry, three, tracking_uri, client, elsewhere):
    for each in three[:2]:
        export_mlflow(registry, each, tracking_uri)
    client.set_registered_model_alias("reviews", "best", "2")
    back = import_mlflow(elsewhere, "models:/reviews@best", tracking_uri)
    assert back.digest == three[1].digest


def test_a_file_altered_in_mlflow_is_named(registry, version, tracking_uri, tmp_path, elsewhere):
    made = export_mlflow(registry, version, tracking_uri)
    (weights,) = (tmp_path / "mlartifacts").rglob("config.json")
    weights.write_text(json.dumps({"model_type": "BERT"}))
    with pytest.raises(DamagedArtifactError, match=r"config\.json: not as its manifest says"):
        import_mlflow(elsewhere, made.uri, tracking_uri)
    assert elsewhere.models() == ()


@pytest.fixture
def foreign(client, folder, tmp_path):
    """A model that MLflow's transformers flavor wrote: model and tokenizer in folders."""
    root = tmp_path / "foreign"
    (root / "components").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "bad", "1": "good"}}))
    (folder / "tokenizer").rename(root / "components" / "tokenizer")
    folder.rename(root / "model")
    (root / "MLmodel").write_text("flavors: {transformers: {}}")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", source=root.as_uri())
    return root


def test_a_model_of_another_tool_is_registered_from_its_files(foreign, tracking_uri, elsewhere):
    version = import_mlflow(elsewhere, "models:/foreign/1", tracking_uri)
    assert [file.path for file in version.manifest.files] == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    assert version.manifest.signature.labels == ("bad", "good")
    assert import_mlflow(elsewhere, "models:/foreign/1", tracking_uri) == version


def test_a_pickle_in_mlflow_does_not_enter(foreign, tracking_uri, elsewhere):
    (foreign / "model" / "model.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(UnsafeArtifactError, match=r"model\.pkl .* a pickle"):
        import_mlflow(elsewhere, "models:/foreign/1", tracking_uri)


def test_a_version_that_mlflow_does_not_have_is_named(tracking_uri, elsewhere):
    with pytest.raises(NotFoundError, match=r"MLflow: .*absent"):
        import_mlflow(elsewhere, "models:/absent/1", tracking_uri)
    with pytest.raises(UserError, match="models:/name/number"):
        import_mlflow(elsewhere, "absent", tracking_uri)
