"""How the next configuration of a sweep is chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind


class GridSearch(Config):
    """Every combination of all values: grids, choices and ranges with a step."""

    kind: Literal["grid"] = "grid"


class RandomSearch(Config):
    """Independent draws."""

    kind: Literal["random"] = "random"


class QuasiRandomSearch(Config):
    """Draws of a scrambled Sobol sequence, which leave no part of the space out.

    Sobol 1967, https://doi.org/10.1016/0041-5553(67)90144-9; scrambling: Owen 1998.
    """

    kind: Literal["quasi_random"] = "quasi_random"


class Tpe(Config):
    """Draws where earlier trials did well: the tree-structured Parzen estimator.

    Bergstra and others 2011, https://papers.nips.cc/paper/4443; with several objectives Ozaki and
    others 2022, https://doi.org/10.1613/jair.1.13188.
    """

    kind: Literal["tpe"] = "tpe"
    num_startup: int = Field(
        default=10, ge=1, description="independent draws before it learns from the results"
    )
    num_candidates: int = Field(
        default=24, ge=1, description="draws of which the most promising is tried"
    )


SearcherSettings = Annotated[
    Annotated[GridSearch | RandomSearch | QuasiRandomSearch | Tpe, Field(discriminator="kind")],
    BeforeValidator(name_as_kind),
]
"""`searcher: tpe`, or a block with `kind: tpe` and its fields."""
