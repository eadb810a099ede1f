"""How many workers of one request are wanted together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from kovar.resources.request import PlacementStrategy, Request, Resources


@dataclass(frozen=True)
class Demand:
    """A gang of equal workers (or trials, or replicas) that are placed all or not at all.

    Args:
        name: unique among the demands that are planned together, for example "training".
        field: path of the request in the spec, for messages, for example "resources.worker".
        request: what each worker needs.
        num_min: fewest workers with which the work runs; for a TPU whole slices.
        num_max: most workers that are used.
        num_field: path of the number of workers; `field` when the spec has none.
        placement: how the workers lie on nodes.
    """

    name: str
    field: str
    request: Request
    num_min: int
    num_max: int
    num_field: str | None = None
    placement: PlacementStrategy = "pack"

    @classmethod
    def of(cls, resources: Resources, *, name: str, field: str = "resources") -> Self:
        """Build the demand of a `Resources` block at `field` in its spec."""
        return cls(
            name=name,
            field=f"{field}.worker",
            request=resources.worker,
            num_min=resources.num_workers.min,
            num_max=resources.num_workers.max,
            num_field=f"{field}.num_workers",
            placement=resources.placement,
        )
