"""Choosing the configurations of a sweep, one after the other, from what the earlier ones gave."""

from kovar.tuning.search.explore import explore
from kovar.tuning.search.factory import make_search
from kovar.tuning.search.search import Observation, Point, Search

__all__ = ["Observation", "Point", "Search", "explore", "make_search"]
