"""The wheel: built from the tree, installed into a clean environment, imported from there."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_library_its_migrations_and_the_recipe_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"kovar"}
    assert {"kovar/py.typed", "kovar/recipes/movie-sentiment.yaml"} <= set(names)
    assert [name for name in names if name.startswith("kovar/registry/migrations/versions/")]


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """Return an environment that holds the wheel, with the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True, cwd=folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    return folder


def test_the_wheel_installs_and_imports_without_the_source_tree(clean, tmp_path):
    (site,) = (clean / "lib").glob("python*/site-packages")
    code = (
        "import json, kovar, platform, kovar.cli, kovar.serving, kovar.tuning; "
        "from kovar.quickstart import find_recipe; "
        "print(json.dumps([kovar.__file__, platform.__file__, str(find_recipe())]))"
    )
    done = subprocess.run(
        [clean / "bin" / "python", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
    )
    library, standard, recipe = json.loads(done.stdout)
    assert Path(library).is_relative_to(site)
    assert Path(recipe) == site / "kovar" / "recipes" / "movie-sentiment.yaml"
    assert Path(standard).name == "platform.py"


def test_the_command_of_the_wheel_answers(clean, tmp_path):
    done = subprocess.run(
        [clean / "bin" / "kovar", "version", "--json"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
    )
    assert json.loads(done.stdout)["ray"].startswith("2.60")
