"""`kovar plan`: where specs of any kind would run together, and what that takes."""

from kovar.planning.display import draw
from kovar.planning.plan import Plan, plan_specs

__all__ = ["Plan", "draw", "plan_specs"]
