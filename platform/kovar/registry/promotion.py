"""Moving aliases: by compare-and-swap, through the gates of protected ones, and back again."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.errors import ConflictError, GateError, RegistryError, UserError
from kovar.registry.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from kovar.registry.reference import DEFAULT_ALIAS, check_name, parse_reference
from kovar.registry.user import current_user
from kovar.registry.version import AliasMove, GateResult, Version

if TYPE_CHECKING:
    from pydantic import JsonValue

    from kovar.registry.artifacts import ArtifactStore
    from kovar.registry.derived import DerivedShelf
    from kovar.registry.gates import Gates
    from kovar.registry.moves import Action, AliasBook, Standing


log = logging.getLogger(__name__)


class Promotion:
    """The part of `Registry` that moves aliases."""

    _aliases: AliasBook
    _artifacts: ArtifactStore
    _derived: DerivedShelf

    on_alias_move: Callable[[AliasMove], None] | None
    """Told of each move of an alias after its commit; must neither wait nor raise."""

    def aliases(self, model: str) -> Mapping[str, int]:
        """Return alias → number of the version that it points at.

        Raises:
            NotFoundError: no such model.
        """
        return self._aliases.list_aliases(model)

    def set_alias(
        self,
        model: str,
        alias: str,
        to: str | int,
        *,
        expected: str | int | None = None,
        force: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> AliasMove:
        """Point an alias at a version: a compare-and-swap, written into an append-only history.

        Args:
            model: name of the model.
            alias: name of the alias; created with its first move.
            to: the target: number, digest or alias.
            expected: number or digest that the alias points at now; None if it does not exist.
            force: move it wherever it points and past its gates; needs a reason.
            reason: why, for the history.
            by: who moves it; this user by default.

        Returns:
            The move; the last one if the alias points at the target already.

        Raises:
            ConflictError: the alias points elsewhere than expected.
            GateError: a gate of the alias refuses.
            NotFoundError: no such model or target.
            UserError: the name is not valid, or a forced move without a reason.
        """
        check_name(alias, field="alias")
        if not force:
            return self._move(model, alias, to, expected, reason, by, action="move")
        if not reason:
            raise UserError(
                "a forced move needs a reason",
                field="reason",
                hint="say why, or give the version that you expect the alias to point at",
            )
        return self._announced(
            self._aliases.move(
                model,
                alias,
                parse_reference(to),
                expected=expected,
                force=True,
                reason=reason,
                by=by or current_user(),
            )
        )

    def promote(
        self,
        model: str,
        alias: str = DEFAULT_ALIAS,
        *,
        to: str | int,
        expected: str | int | None = None,
        reason: str,
        by: str | None = None,
    ) -> AliasMove:
        """Point an alias at a version that passes its gates; the move carries what they found.

        Args:
            model: name of the model.
            alias: name of the alias.
            to: the target: number, digest or another alias.
            expected: number or digest that the alias points at now; None if it does not exist.
            reason: why, for the history.
            by: who promotes; this user by default.

        Raises:
            ConflictError: the alias points elsewhere than expected, or its gates changed meanwhile.
            GateError: a gate refuses; the message names it, with its numbers.
            NotFoundError: no such model or target.
        """
        check_name(alias, field="alias")
        return self._move(model, alias, to, expected, reason, by, action="promotion")

    def _move(
        self,
        model: str,
        alias: str,
        to: str | int,
        expected: str | int | None,
        reason: str | None,
        by: str | None,
        *,
        action: Action,
    ) -> AliasMove:
        from kovar.registry.moves import compare

        by = by or current_user()
        standing = self._aliases.look(model, alias, parse_reference(to))
        compare(model, alias, standing.last_move, expected)
        results = self._judge(standing, by)
        if refused := [result for result in results if not result.passed]:
            lines = [f"  {result.gate}: {result.message}" for result in refused]
            raise GateError(
                "\n".join([f"{standing.target} may not become {model}@{alias}:", *lines]),
                hint="meet the gates, or force the move with a reason",
                gates=[result.gate for result in refused],
                numbers={result.gate: dict(result.numbers) for result in refused},
            )
        return self._announced(
            self._aliases.move(
                model,
                alias,
                # The very version that was judged: an alias may move meanwhile.
                parse_reference(standing.target.digest),
                expected=standing.last_move.to_digest if standing.last_move else None,
                force=False,
                reason=reason,
                by=by,
                action=action,
                declaration=standing.declaration,
                results=results,
            )
        )

    def _announced(self, move: AliasMove) -> AliasMove:
        """Tell `on_alias_move` of a move that is committed: nothing can undo or fail it now."""
        if self.on_alias_move is not None:
            try:
                self.on_alias_move(move)
            except Exception:
                log.exception(
                    "the move of %s@%s stands; telling of it failed", move.model, move.alias
                )
        return move

    def check_gates(
        self, model: str, alias: str, to: str | int, *, by: str | None = None
    ) -> tuple[GateResult, ...]:
        """Ask the gates of an alias about a version, and move nothing.

        Raises:
            NotFoundError: no such model or target.
        """
        standing = self._aliases.look(model, alias, parse_reference(to))
        return self._judge(standing, by or current_user())

    def _judge(self, standing: Standing, by: str) -> tuple[GateResult, ...]:
        from kovar.registry.gates import Evidence, judge

        if standing.gates is None or standing.incumbent == standing.target:
            return ()
        named = {bound.dataset for bound in standing.gates.metrics}
        asked = standing.gates.better_than_incumbent is not None and standing.incumbent is not None
        return judge(
            standing.gates,
            Evidence(
                candidate=standing.target,
                metrics=self._metrics(standing.target, named),
                incumbent=standing.incumbent,
                candidate_predictions=self.predictions(standing.target) if asked else None,
                incumbent_predictions=(
                    self.predictions(standing.incumbent) if asked and standing.incumbent else None
                ),
                golden=standing.golden,
                approvers=standing.approvers,
                promoter=by,
            ),
        )

    def _metrics(
        self, version: Version, datasets: set[str]
    ) -> Mapping[str, Mapping[str, JsonValue]]:
        """Return the metrics of a version: its own, and those of evaluations that are named."""
        from kovar.registry.evaluations import read_evaluations

        own = version.manifest.metrics
        if datasets <= own.keys():
            return own
        later = read_evaluations(self._artifacts, self._derived.list(version))
        return {name: one.record.metrics for name, one in later.items()} | own

    def predictions(self, version: Version) -> Predictions | None:
        """Return what a version predicted for each evaluated row, in its run and later.

        Raises:
            DamagedArtifactError: a blob is missing, truncated or altered.
        """
        from kovar.registry.evaluations import read_evaluated_predictions

        found = dict(read_evaluated_predictions(self._artifacts, self._derived.list(version)))
        for entry in version.manifest.files:
            if entry.path == PREDICTIONS_FILE:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, "predictions.json")
                    self._artifacts.fetch(entry, path)
                    found |= read_predictions(path).datasets
        return Predictions(datasets=found) if found else None

    def rollback(
        self,
        model: str,
        alias: str = DEFAULT_ALIAS,
        *,
        reason: str,
        expected: str | int | None = None,
        by: str | None = None,
    ) -> AliasMove:
        """Point an alias back at the version before; again, at the one before that.

        Gates are not asked: the version passed them, or was forced, when it was promoted.

        Args:
            model: name of the model.
            alias: name of the alias.
            reason: why, for the history.
            expected: number or digest that it points at now; where it is found by default.
            by: who rolls back; this user by default.

        Raises:
            ConflictError: somebody moved it meanwhile.
            RegistryError: there is nothing to go back to.
            NotFoundError: no such model or alias, or the version was deleted.
        """
        from kovar.registry.moves import compare, previous

        history = self.history(model, alias)
        if expected is not None:
            compare(model, alias, history[-1], expected)
        back = previous(history)
        if back is None:
            raise RegistryError(
                f"{model}@{alias} has no earlier version to go back to",
                hint=f"`kovar models history {model} {alias}` shows where it pointed",
            )
        if back.to_digest == history[-1].to_digest:
            raise ConflictError(f"{model}@{alias} points at version {back.to_number} already")
        return self._announced(
            self._aliases.move(
                model,
                alias,
                parse_reference(back.to_digest),
                expected=history[-1].to_digest,
                force=False,
                reason=reason,
                by=by or current_user(),
                action="rollback",
            )
        )

    def history(self, model: str, alias: str) -> tuple[AliasMove, ...]:
        """Return every move of an alias, oldest first.

        Raises:
            NotFoundError: no such model or alias.
        """
        return self._aliases.list_moves(model, alias)

    def at(self, model: str, alias: str, time: datetime) -> AliasMove:
        """Return where an alias pointed at a time: the move that it stood on.

        Raises:
            NotFoundError: no such model or alias, or it did not exist yet.
            UserError: the time has no zone.
        """
        if time.tzinfo is None:
            raise UserError(
                "the time has no zone",
                field="time",
                got=time.isoformat(),
                hint="add one: 2026-05-03T10:00:00+02:00",
            )
        return self._aliases.move_at(model, alias, time)

    def declare_gates(
        self,
        model: str,
        gates: Gates | None,
        *,
        alias: str = DEFAULT_ALIAS,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Protect an alias by gates, which may come before the first version; None ends that.

        Args:
            model: name of the model.
            gates: what a version must prove from now on.
            alias: name of the alias.
            reason: why.
            by: who declares them; this user by default.

        Raises:
            UserError: a name is not valid.
        """
        check_name(model, field="model")
        check_name(alias, field="alias")
        self._aliases.declare(model, alias, gates, reason=reason, by=by or current_user())

    def gates(self, model: str, alias: str = DEFAULT_ALIAS) -> Gates | None:
        """Return the gates of an alias, or None where none are declared.

        Raises:
            NotFoundError: no such model.
        """
        return self._aliases.gates(model, alias)

    def approve(
        self,
        model: str,
        to: str | int,
        *,
        alias: str = DEFAULT_ALIAS,
        comment: str | None = None,
        by: str | None = None,
    ) -> None:
        """Approve of a version for an alias, for gates that want a second person.

        Args:
            model: name of the model.
            to: the version: number or digest.
            alias: name of the alias.
            comment: what was looked at.
            by: who approves; this user by default.

        Raises:
            NotFoundError: no such model or version.
        """
        check_name(alias, field="alias")
        self._aliases.approve(
            model, alias, parse_reference(to), comment=comment, by=by or current_user()
        )
