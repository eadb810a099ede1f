"""The parts of a Ray cluster.yaml that several rules look at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

from kovar.config import FieldPath
from kovar.resources.lint.node import ClusterSource, NodeDeclaration, meant_resource
from kovar.resources.machine_types import Cloud

SETUP_KEYS: Final = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
)  # fmt: skip
START_KEYS: Final = ("head_start_ray_commands", "worker_start_ray_commands")


@dataclass(frozen=True)
class Command:
    """One shell command and where it is written."""

    path: FieldPath
    text: str


@dataclass(frozen=True)
class ClusterYaml(ClusterSource):
    """A cluster.yaml under examination."""

    @cached_property
    def provider(self) -> str:
        """The provider's type, empty when it is not given."""
        return str(self.get(("provider", "type")) or "")

    @property
    def is_simulated(self) -> bool:
        """Whether its nodes are processes of one machine: nothing is installed or exposed."""
        module = str(self.get(("provider", "module")) or "")
        return self.provider == "fake_multinode" or module.startswith("kovar.simulation")

    @property
    def cloud(self) -> Cloud | None:
        """The cloud whose machine types are known here."""
        return cast(Cloud, self.provider) if self.provider in ("aws", "gcp") else None

    @cached_property
    def node_types(self) -> tuple[NodeDeclaration, ...]:
        """All node types, in the order of the file."""
        head = self.get(("head_node_type",))
        found = []
        for name in self.mapping(("available_node_types",)):
            path: FieldPath = ("available_node_types", name)
            amounts = {
                str(key): self.number((*path, "resources", key))
                for key in self.mapping((*path, "resources"))
            }
            labels = self.mapping((*path, "labels"))
            found.append(
                NodeDeclaration(
                    name=str(name),
                    path=path,
                    is_head=name == head,
                    resources={
                        meant_resource(key): n for key, n in amounts.items() if n is not None
                    },
                    config=self.mapping((*path, "node_config")),
                    labels={k: v for k, v in labels.items() if isinstance(v, str)},
                )
            )
        return tuple(found)

    @property
    def workers(self) -> tuple[NodeDeclaration, ...]:
        """Node types other than the head's."""
        return tuple(kind for kind in self.node_types if not kind.is_head)

    @property
    def head(self) -> NodeDeclaration | None:
        """The head's node type."""
        return next((kind for kind in self.node_types if kind.is_head), None)

    def commands(self, *keys: str) -> Iterator[Command]:
        """Walk through the shell commands under some keys of the file."""
        for key in keys:
            yield from self.commands_at((key,))

    def commands_at(self, path: FieldPath) -> Iterator[Command]:
        """Walk through the shell commands of one list."""
        for index, text in enumerate(self.items(path)):
            if isinstance(text, str):
                yield Command((*path, index), text)

    def all_commands(self) -> Iterator[Command]:
        """Walk through every shell command of the file."""
        yield from self.commands(*SETUP_KEYS, *START_KEYS)
        for kind in self.node_types:
            for key in ("initialization_commands", "worker_setup_commands"):
                yield from self.commands_at(kind.at(key))

    def images(self) -> Iterator[tuple[FieldPath, str]]:
        """Walk through the container images that nodes run."""
        paths: list[FieldPath] = [
            ("docker", key) for key in ("image", "head_image", "worker_image")
        ]
        paths += [kind.at("docker", "worker_image") for kind in self.node_types]
        for path in paths:
            image = self.get(path)
            if isinstance(image, str) and image:
                yield path, image


def environment_value(text: str, name: str) -> str | None:
    """Return what a shell command sets an environment variable to; None when it does not."""
    match = re.search(rf"\b{name}=(\"[^\"]*\"|'[^']*'|[^\s;&\"']*)", text)
    return match[1].strip("\"'") if match else None
