"""`kovar models export`, `import`, `show --html` and `kovar keys`, as a shell runs them."""

import json
import os
import subprocess
import sys

import pytest

from tiny_version import build_tiny_classifier, register_tiny_version, settings_in


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    made = register_tiny_version(settings_in(folder), build_tiny_classifier(folder / "made"))
    return folder, made


@pytest.fixture
def kovar(home, tmp_path):
    def call(*arguments, there: bool = False, **environment):
        """Run a command, in a second registry if `there`."""
        place = tmp_path / "there" if there else home[0]
        settings = {
            "KOVAR_DATABASE_URL": f"sqlite:///{place / 'registry.db'}",
            "KOVAR_ARTIFACT_ROOT": str(place / "artifacts"),
            "KOVAR_CACHE_DIR": str(place / "cache"),
        }
        return subprocess.run(
            [sys.executable, "-m", "kovar", *map(str, arguments)],
            env=os.environ | settings | environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return call


@pytest.mark.parametrize("kind", ["hf", "archive"])
def test_a_version_moves_to_another_registry_and_stays_itself(kovar, home, kind):
    sent = kovar("models", "export", "tiny", "--to", "out", "--format", kind, "--json")
    assert json.loads(sent.stdout)["digest"] == home[1].digest
    back = kovar("models", "import", "out", "--model", "copy", "--json", there=True)
    assert json.loads(back.stdout) == {"model": "copy", "version": 1, "digest": home[1].digest}


def test_a_version_goes_to_mlflow_and_comes_back(kovar, home, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sent = kovar("models", "export", "tiny", "--to", uri, "--format", "mlflow")
    assert "→ models:/tiny/1" in sent.stdout
    back = kovar("models", "import", "models:/tiny/1", "--mlflow", uri, there=True)
    assert home[1].digest in back.stdout


def test_a_tampered_export_exits_with_1_and_names_the_file(kovar, tmp_path):
    kovar("models", "export", "tiny", "--to", "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    refused = kovar("models", "import", "out", there=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: config.json: not as its manifest says")


def test_mistakes_exit_with_2(kovar, tmp_path):
    (tmp_path / "there is something").mkdir()
    exists = kovar("models", "export", "tiny", "--to", "there is something")
    assert (exists.returncode, "there already" in exists.stderr) == (2, True)
    alone = kovar("models", "import", "models:/tiny/1")
    assert (alone.returncode, "--mlflow" in alone.stderr) == (2, True)
    assert kovar("models", "import", "absent").returncode == 2


def test_the_card_becomes_a_page(kovar, tmp_path, home):
    assert kovar("models", "show", "tiny", "--html", "card.html").returncode == 0
    page = (tmp_path / "card.html").read_text()
    assert page.startswith("<!doctype html>")
    assert home[1].digest in page


def test_a_generated_key_signs_what_is_imported_and_is_trusted(kovar, tmp_path):
    assert "KOVAR_SIGNING_KEY" in kovar("keys", "generate", "ada").stdout
    signing = {"KOVAR_SIGNING_KEY": "ada", "KOVAR_TRUSTED_KEYS": "ada.pub"}
    kovar("models", "export", "tiny", "--to", "unsigned")
    refused = kovar("models", "import", "unsigned", there=True, **signing)
    assert (refused.returncode, "is not signed" in refused.stderr) == (1, True)
    kovar("models", "import", "unsigned", there=True, KOVAR_SIGNING_KEY="ada")
    trusting = {"KOVAR_TRUSTED_KEYS": "ada.pub"}
    sent = kovar("models", "export", "tiny@1", "--to", "signed", there=True, **trusting)
    assert sent.returncode == 0
