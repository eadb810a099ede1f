"""Many threads and processes at once, and processes that die."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from kovar.errors import ConflictError
from kovar.registry import Registry

SETUP = """
import os, signal, sys
from pathlib import Path
from kovar.errors import ConflictError
from kovar.registry import Registry, VersionFacts
from kovar.settings import Settings
settings = Settings.model_validate_json(sys.argv[1])
folder, facts = Path(sys.argv[2]), VersionFacts.model_validate_json(sys.argv[3])
"""

REGISTER = """
with Registry.open(settings) as registry:
    print(registry.register("reviews", folder, facts=facts).number)
"""

MOVE = """
with Registry.open(settings) as registry:
    won = 0
    while won < 15:
        current = registry.version("reviews", "champion").number
        try:
            registry.set_alias("reviews", "champion", current % 3 + 1, expected=current)
            won += 1
        except ConflictError:
            pass
"""


@pytest.fixture
def start(settings, folder, facts):
    def start(code: str) -> subprocess.Popen:
        arguments = [settings.model_dump_json(), str(folder), facts.model_dump_json()]
        command = [sys.executable, "-c", SETUP + code, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


def chain(history) -> bool:
    """Whether each move starts where the one before it ended."""
    ends = [None, *(move.to_number for move in history)]
    numbered = [move.sequence for move in history] == list(range(1, len(history) + 1))
    return numbered and [move.from_number for move in history] == ends[:-1]


def test_of_many_threads_with_the_same_expectation_exactly_one_wins(registry, three):
    registry.set_alias("reviews", "champion", 1)

    def promote(number: int) -> bool:
        try:
            registry.set_alias("reviews", "champion", 2 + number % 2, expected=1)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(promote, range(16))) == 1
    assert len(registry.history("reviews", "champion")) == 2


def test_no_update_of_concurrent_processes_is_lost(registry, three, start):
    registry.set_alias("reviews", "champion", 1)
    processes = [start(MOVE) for _ in range(3)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0, 0]
    history = registry.history("reviews", "champion")
    assert len(history) == 1 + 3 * 15
    assert chain(history)
    assert registry.aliases("reviews") == {"champion": history[-1].to_number}


def test_threads_that_register_identical_content_make_one_version(registry, folder, facts):
    def register(_: int) -> int:
        return registry.register("reviews", folder, facts=facts).number

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(register, range(16))) == {1}
    assert len(registry.versions("reviews")) == 1


def test_threads_that_register_different_content_get_different_numbers(registry, folder, facts):
    def register(seed: int) -> int:
        changed = facts.model_copy(update={"seed": seed})
        return registry.register("reviews", folder, facts=changed).number

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(register, range(16))) == list(range(1, 17))


def test_processes_that_create_the_registry_together_make_one_version(settings, start):
    processes = [start(REGISTER) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["1\n"] * 3
    with Registry.open(settings) as registry:
        assert [model.num_versions for model in registry.models()] == [1]
        assert registry.verify() == []


def test_threads_that_materialize_together_get_one_whole_folder(registry, version):
    with ThreadPoolExecutor(8) as threads:
        folders = set(threads.map(lambda _: registry.materialize(version), range(16)))
    assert len(folders) == 1
    assert registry.materialize(version) in folders
