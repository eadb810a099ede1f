"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kovar.settings import load_settings
from ray_head import RayHead

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need real workers."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, SOURCES))}},
    )
    yield
    ray.shutdown()


SOURCES = (REPOSITORY / "platform", REPOSITORY / "tests")


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """A head with a dashboard, as `ray start --head` makes it: for jobs and `serve deploy`."""
    home = tmp_path_factory.mktemp("head")
    # Packages are downloaded once per machine, into the user's own cache.
    cache = load_settings(os.environ).cache_dir
    environment = {"KOVAR_HOME": str(home), "KOVAR_CACHE_DIR": str(cache)}
    with RayHead.started(environment) as head:
        yield head
