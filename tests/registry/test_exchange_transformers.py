"""transformers loads an exported version as it is; what its MLflow flavor wrote is registered."""

import pytest

from kovar.registry import Registry
from kovar.registry.exchange import export_folder, import_folder, import_mlflow
from tiny_version import (
    LABELS,
    TEXTS,
    build_tiny_classifier,
    build_tiny_version,
    register_tiny_version,
    settings_in,
)


def test_from_pretrained_loads_the_export_and_answers_as_the_version_does(tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from kovar.inference import load_runtime

    settings = settings_in(tmp_path / "registry")
    version = register_tiny_version(settings, build_tiny_version(tmp_path / "made"))
    with Registry.open(settings) as registry:
        exported = export_folder(registry, version, tmp_path / "exported")
        assert import_folder(registry, exported) == version
    model = AutoModelForSequenceClassification.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    with torch.inference_mode():
        logits = model(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits
    labels = [model.config.id2label[int(index)] for index in logits.argmax(dim=-1)]
    expected = load_runtime(exported, precision="fp32").predict(TEXTS)
    assert labels == [answer.label for answer in expected]
    assert torch.allclose(
        logits.softmax(-1).max(-1).values,
        torch.tensor([answer.score for answer in expected]),
        atol=1e-5,
    )


@pytest.mark.filterwarnings("ignore")  # of MLflow and transformers, which are not ours
def test_a_model_that_mlflow_logged_with_its_transformers_flavor_is_registered(
    registry, tmp_path, monkeypatch
):
    import mlflow
    from transformers import pipeline

    folder = str(build_tiny_classifier(tmp_path / "made"))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts in the working folder
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run():
            mlflow.transformers.log_model(
                pipeline("text-classification", model=folder, tokenizer=folder),
                name="model",
                registered_model_name="logged",
                pip_requirements=["transformers"],
            )
    finally:
        mlflow.set_tracking_uri(None)
    version = import_mlflow(registry, "models:/logged/1", uri)
    paths = {file.path for file in version.manifest.files}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= paths
    assert version.manifest.signature.labels == LABELS
