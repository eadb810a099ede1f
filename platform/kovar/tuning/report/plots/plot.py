"""What a plot of a sweep is: drawn by plotly for the page, and by matplotlib as a PNG."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Variant:
    """One way to draw a plot on the page.

    Args:
        name: as the reader chooses it.
        data: traces, as plotly.js takes them.
        layout: as plotly.js takes it; fonts and colors of the page are added there.
    """

    name: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"name": self.name, "data": self.data, "layout": self.layout}


class Plot(ABC):
    """One plot.

    Attributes:
        slug: names its PNG and its place on the page.
        title: its heading.
        size: of the PNG, in inches.
    """

    slug: ClassVar[str]
    title: ClassVar[str]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the PNG in inches."""
        return 9.0, 5.5

    @property
    @abstractmethod
    def caption(self) -> str:
        """What is seen, and how to read it."""

    @abstractmethod
    def variants(self) -> list[Variant]:
        """Return the ways to draw it on the page, the one that is shown first at the front."""

    @abstractmethod
    def draw(self, figure: Figure) -> None:
        """Draw the first variant by matplotlib into an empty figure."""
