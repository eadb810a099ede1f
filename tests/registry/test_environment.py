"""The facts about this process, and what importing the registry loads."""

import platform
import subprocess
import sys

import pydantic

from kovar.registry import current_environment, source_revision


def git(folder, *arguments):
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


def test_the_environment_lists_packages_python_and_the_chip():
    found = current_environment(chip="NVIDIA L4", driver="550")
    assert found.packages["pydantic"] == pydantic.VERSION
    assert found.python == platform.python_version()
    assert (found.chip, found.driver) == ("NVIDIA L4", "550")


def test_a_commit_is_clean_until_a_tracked_file_changes(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    clean = source_revision(tmp_path)
    assert len(clean.revision) == 40
    assert not clean.dirty
    (tmp_path / "a").write_text("2")
    assert source_revision(tmp_path).dirty


def test_a_folder_without_a_repository_has_no_revision(tmp_path):
    assert source_revision(tmp_path) is None


def test_importing_the_registry_loads_neither_torch_nor_ray_nor_a_database():
    heavy = {"torch", "ray", "numpy", "pyarrow", "sqlalchemy", "alembic", "transformers"}
    code = f"import sys, kovar.registry; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert done.split() == []
