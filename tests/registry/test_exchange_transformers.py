"""transformers loads an exported version as it is."""

from kovar.registry import Registry
from kovar.registry.exchange import export_folder, import_folder
from tiny_version import TEXTS, build_tiny_version, register_tiny_version, settings_in


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
