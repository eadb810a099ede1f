"""`micro_batch_tokens: auto`: how many tokens pass through the model at a time, by measured memory.

Two passes of unlike size tell what a token costs on this chip with this model, optimizer and
precision; what is free tells how many fit. Nothing is tried until it fails. Every pass is measured
in the allocator, not in the process, so that the same machine gives the same number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.training.shrinking import PassTooLargeError, free_cached, too_large

if TYPE_CHECKING:
    import torch

    from kovar.training.engine import Engine

USABLE: Final = 0.8
"""Share of the free memory that passes may take: allocators leave holes."""
ROWS_OF_PROBES: Final = (1, 4)


@dataclass(frozen=True)
class Budget:
    """What was measured and what follows.

    Args:
        micro_batch_tokens: padded tokens of one pass of one rank; a power of two of the longest
            rows, so that a little more or less free memory changes nothing, or the whole batch.
        bytes_per_token: of activations, while gradients exist.
        fixed_bytes: of a pass, whatever its size.
        optimizer_bytes: of the optimizer's state, which the first step makes.
        free_bytes: beside weights and gradients.
        seconds: of measuring.
    """

    micro_batch_tokens: int
    bytes_per_token: float
    fixed_bytes: int
    optimizer_bytes: int
    free_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def measure_budget(engine: Engine, *, limit_bytes: int | None = None) -> Budget:
    """Measure on this rank; every rank must call it, and all return the smallest budget.

    Args:
        engine: before its first step; it is left as it was.
        limit_bytes: memory that this process may have; None for what the machine has.

    Raises:
        OutOfMemoryError: not even one row passes through the model.
    """
    began = time.perf_counter()
    lengths = engine.dataset.open("train").lengths
    longest = int(lengths.max())
    rows = lengths.argsort(kind="stable")[::-1]
    few, more = (min(number, len(rows)) for number in ROWS_OF_PROBES)

    def peak(number: int) -> int:
        micro_batch = engine.feed.probe(rows[:number].astype("int64"), longest)
        return _peak_bytes(lambda: engine.step.probe(micro_batch), engine.device)

    try:
        peak(few)  # makes the gradients, which are there in every pass but the first
        small = large = peak(few)
    except PassTooLargeError:
        raise too_large(f"measuring: one row of {longest} tokens") from None
    fits = True
    try:
        large = peak(more)
    except PassTooLargeError:
        fits, more = False, few
        free_cached(engine.device.type)
        peak(few)  # the optimizer's state is measured with gradients
    optimizer_bytes = engine.step.probe_state()
    if engine.compiled is not None:
        engine.compiled.forget()
    per_token = (large - small) / ((more - few) * longest) if more > few else small / longest
    fixed = max(0, round(small - per_token * few * longest))
    free = _free_bytes(engine.device, limit_bytes)
    rooms = max(0.0, USABLE * (free - optimizer_bytes) - fixed) / (per_token * longest)
    num_rows = 1 << max(0, int(rooms).bit_length() - 1) if fits else few
    # Not more where it suffices for this rank's share: an evaluation passes whole batches, and so
    # does a run that goes on with fewer ranks.
    tokens = min(engine.settings.max_tokens, num_rows * longest)
    return Budget(
        engine.parallel.least(tokens),
        bytes_per_token=round(per_token, 1),
        fixed_bytes=fixed,
        optimizer_bytes=optimizer_bytes,
        free_bytes=free,
        seconds=time.perf_counter() - began,
    )


def _peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Return by how much the memory in use rises at most while `work` runs."""
    import torch

    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    # The profiler announces itself on standard error otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    found: Any = profile.kineto_results
    changes = [e for e in found.events() if e.name() == "[memory]"]
    in_use = most = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        in_use += change.nbytes()
        most = max(most, in_use)
    return most


def _free_bytes(device: torch.device, limit_bytes: int | None) -> int:
    """Return the memory that this process can still take."""
    import torch

    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = _available_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return free if limit_bytes is None else min(free, limit_bytes - _resident_bytes())


def _available_bytes(root: Path = Path("/")) -> int:
    """Return what the machine, or the container that this process is in, can still give."""
    told = (root / "proc/meminfo").read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    for most, used in _CGROUP_FILES:
        limit, taken = (root / "sys/fs/cgroup" / name for name in (most, used))
        if limit.exists() and (bound := limit.read_text().strip()).isdigit():
            free = min(free, int(bound) - int(taken.read_text()))
    return free


_CGROUP_FILES: Final = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
