"""Programs that are killed at work, for the fault experiments; run as a script, it forks them.

usage: registry_faults.py EXPERIMENT SETTINGS FOLDER FACTS [ARGUMENT ...]
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kovar.errors import ConflictError
from kovar.registry import Registry, VersionFacts
from kovar.settings import Settings

NO_STEP = 1 << 30


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def promote_for(settings: Settings, acks: Path, deadline: float) -> None:
    """Promote by compare-and-swap till the deadline; write down what was acknowledged."""
    pause = threading.Event()
    descriptor = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Registry.open(settings) as registry:
        for count in range(NO_STEP):
            if time.monotonic() > deadline:
                return
            current = registry.version("reviews", "champion").number
            reason = f"{os.getpid()}-{count}"
            try:
                move = registry.promote(
                    "reviews", to=current % 3 + 1, expected=current, reason=reason
                )
            except ConflictError:
                # Without a pause of random length most attempts of so many are in vain.
                pause.wait(random.uniform(0.0, 0.3))
                continue
            os.write(descriptor, f"{json.dumps([move.sequence, reason])}\n".encode())


def experiment_promote(settings: Settings, folder: Path, num_processes: int, seconds: float) -> Any:
    """Let many processes promote one alias, kill one a second, and start another in its place."""
    # What is imported here need not be imported by each child.
    Registry.open(settings).close()
    deadline = time.monotonic() + seconds
    acks = folder.with_name("acks")
    acks.mkdir()

    def start(number: int) -> int:
        return fork(lambda: promote_for(settings, acks / str(number), deadline))

    running = {start(number) for number in range(num_processes)}
    killed, rest = 0, threading.Event()
    while time.monotonic() < deadline - 1 and not rest.wait(1.0):
        victim = random.choice(sorted(running))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        running.remove(victim)
        killed += 1
        running.add(start(num_processes + killed))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in running]
    # A kill can cut the last line short: then nobody was told.
    lines = [line for path in acks.iterdir() for line in path.read_text().splitlines(keepends=True)]
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return {"killed": killed, "acknowledged": told, "failed": sum(code != 0 for code in codes)}


def die_at(step: int, roots: tuple[str, ...]) -> list[str]:
    """Kill this process at its n-th step: a file or folder touched, a statement or a commit."""
    steps: list[str] = []

    def count(name: str) -> None:
        steps.append(name)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        touches = event in ("open", "os.rename", "os.mkdir", "os.remove", "os.link")
        if touches and str(arguments[0]).startswith(roots):
            count(event)

    sys.addaudithook(audit)
    before, after = "before_cursor_execute", "after_cursor_execute"
    sa.event.listen(sa.Engine, before, lambda *a: count(f"before {a[2].split()[0]}"))
    sa.event.listen(sa.Engine, after, lambda *a: count(f"after {a[2].split()[0]}"))
    sa.event.listen(sa.Engine, "commit", lambda *a: count("commit"))
    return steps


def experiment_register(settings: Settings, folder: Path, facts: VersionFacts) -> Any:
    """Register once per step, killed at that step; check and clean up after each."""
    roots = (settings.artifact_root, str(folder))

    def register(step: int, report: bool = False) -> None:
        with Registry.open(settings) as registry:
            steps = die_at(step, roots)
            changed = facts.model_copy(update={"seed": step})
            registry.register("reviews", folder, facts=changed)
            if report:
                sys.stdout.write(json.dumps(steps) + "\n")

    os.waitpid(fork(lambda: register(NO_STEP)), 0)
    check_and_clean(settings)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writing, 1)
        register(NO_STEP - 1, report=True)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        steps = json.loads(stream.read())
    check_and_clean(settings)
    whole = []
    for step in range(1, len(steps) + 1):
        pid = fork(functools.partial(register, step))
        died = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        whole.append([died, check_and_clean(settings)])
    return {"steps": steps, "outcomes": whole}


def check_and_clean(settings: Settings) -> int:
    """Return how many whole versions there are; remove them, collect, and look that all is gone."""
    later = datetime.now(UTC) + timedelta(hours=3)
    with Registry.open(settings, clock=lambda: later) as registry:
        damage = registry.verify()
        found = registry.versions("reviews") if registry.models() else ()
        for version in found:
            registry.delete("reviews", version.number, reason="next step")
    with Registry.open(settings, clock=lambda: later + timedelta(hours=3)) as registry:
        registry.collect_garbage(grace=timedelta(hours=2))
    left = [path for path in Path(settings.artifact_root).rglob("*") if path.is_file()]
    if damage or left:
        raise SystemExit(f"damaged: {damage}; left after gc: {left}")
    return len(found)


def experiment_identical(
    settings: Settings, folder: Path, facts: VersionFacts, num_processes: int
) -> Any:
    """Register the same content from many processes at once."""

    def register() -> None:
        with Registry.open(settings) as registry:
            registry.register("reviews", folder, facts=facts)

    pids = [fork(register) for _ in range(num_processes)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def experiment_full(settings: Settings, folder: Path, facts: VersionFacts, limit: int) -> Any:
    """Register where no file may be longer than `limit`."""
    import resource

    from kovar.errors import RegistryError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Registry.open(settings) as registry:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            registry.register("reviews", folder, facts=facts)
        except RegistryError as refusal:
            return str(refusal)
        return "registered"


def main(arguments: list[str]) -> None:
    settings = Settings.model_validate_json(arguments[1])
    folder, facts = Path(arguments[2]), VersionFacts.model_validate_json(arguments[3])
    match arguments[0], arguments[4:]:
        case "promote", [processes, seconds]:
            result = experiment_promote(settings, folder, int(processes), float(seconds))
        case "register", []:
            result = experiment_register(settings, folder, facts)
        case "identical", [processes]:
            result = experiment_identical(settings, folder, facts, int(processes))
        case "full", [limit]:
            result = experiment_full(settings, folder, facts, int(limit))
        case other:
            raise SystemExit(f"no such experiment: {other}")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
