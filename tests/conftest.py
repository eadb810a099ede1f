"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from kovar.serving.environment import SERVE_ENVIRONMENT
from kovar.settings import load_settings
from ray_head import RayHead

if TYPE_CHECKING:
    from kovar.training.run import RunResult
    from tiny_export import ExportedVersion

REPOSITORY = Path(__file__).parents[1]

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need real workers."""
    import ray

    # Serve's servers of gRPC read it when they start, from the environment of Ray.
    with pytest.MonkeyPatch.context() as patch:
        name = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"
        patch.setenv(name, SERVE_ENVIRONMENT[name])
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
RAYS = {"ray_session", "ray_head"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that need a Ray: they take longest, so all processes end together."""
    slow = {
        item.path
        for item in items
        if item.get_closest_marker("cluster") or RAYS & set(getattr(item, "fixturenames", ()))
    }
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """A head with a dashboard, as `ray start --head` makes it: for jobs and `serve deploy`."""
    home = tmp_path_factory.mktemp("head")
    # Packages are downloaded once per machine, into the user's own cache.
    cache = load_settings(os.environ).cache_dir
    environment = {"KOVAR_HOME": str(home), "KOVAR_CACHE_DIR": str(cache)} | SERVE_ENVIRONMENT
    with RayHead.started(environment) as head:
        yield head


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedVersion:
    """A tiny version, and its export in fp32."""
    from tiny_export import export_tiny_version

    return export_tiny_version(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def trained_topics(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A version whose texts have any number of labels, and the folder of its registry."""
    from tiny_run import run_spec
    from tiny_tasks import TRAINING, topic_rows, write_task
    from tiny_version import settings_in

    folder = tmp_path_factory.mktemp("topics")
    training = TRAINING | {"epochs": 16}
    path = write_task(folder, "multilabel-classification", topic_rows(), training=training)
    return folder, run_spec(path, settings_in(folder))


@pytest.fixture(scope="session")
def trained_entities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A version that tags words, and the folder of its registry."""
    from tiny_run import run_spec
    from tiny_tasks import tagged_rows, write_task
    from tiny_version import settings_in

    folder = tmp_path_factory.mktemp("entities")
    path = write_task(folder, "token-classification", tagged_rows())
    return folder, run_spec(path, settings_in(folder))
