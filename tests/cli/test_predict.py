"""`kovar predict` with versions of other tasks than one label a text."""

import json

import pytest
from typer.testing import CliRunner

from kovar.cli import app
from tiny_version import environment_of, settings_in


@pytest.fixture
def predict(monkeypatch):
    def predict(folder, *arguments):
        for name, value in environment_of(settings_in(folder)).items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(app, ["predict", "tiny", *arguments], catch_exceptions=False)
        return done.stdout

    return predict


def test_a_tagger_answers_with_a_tag_for_each_word(trained_entities, predict):
    folder, _ = trained_entities
    (found,) = json.loads(predict(folder, "the plot is very awful 7", "--json"))["predictions"]
    assert found["tags"] == ["O", "B-THING", "O", "B-HOW", "I-HOW", "O"]
    assert "B-THING" in predict(folder, "the plot is dull")


def test_all_labels_of_a_text_are_named(trained_topics, predict):
    folder, _ = trained_topics
    (found,) = json.loads(predict(folder, "the acting is great", "--json"))["predictions"]
    assert found["labels"] == [name for name, score in found["scores"].items() if score >= 0.5]
    assert "the acting is great" in predict(folder, "the acting is great")
