"""Which runtimes reproduced the golden examples of which versions: noted, and looked up."""

from __future__ import annotations

import math
from datetime import datetime

import sqlalchemy as sa

from kovar.registry.schema import golden_checks
from kovar.registry.version import GoldenResult


def add_check(
    connection: sa.Connection,
    version_id: int,
    result: GoldenResult,
    *,
    derived_id: int | None = None,
    at: datetime,
    by: str,
) -> None:
    """Note one check; earlier ones stay."""
    difference = result.difference
    connection.execute(
        golden_checks.insert().values(
            version_id=version_id,
            derived_id=derived_id,
            runtime=result.runtime,
            chip=result.chip,
            passed=result.passed,
            difference=difference if difference is not None and math.isfinite(difference) else None,
            tolerance=result.tolerance,
            checked_at=at,
            checked_by=by,
        )
    )


def latest_checks(
    connection: sa.Connection, version_id: int, *, derived_id: int | None = None
) -> dict[str, GoldenResult]:
    """Return runtime → the latest check of a version, or of one derived artifact of it."""
    query = sa.select(golden_checks).where(golden_checks.c.version_id == version_id)
    if derived_id is not None:
        query = query.where(golden_checks.c.derived_id == derived_id)
    return {
        row.runtime: GoldenResult(
            runtime=row.runtime,
            chip=row.chip,
            passed=row.passed,
            difference=row.difference,
            tolerance=row.tolerance,
        )
        for row in connection.execute(query.order_by(golden_checks.c.id))
    }
