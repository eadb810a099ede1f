"""The most memory that this process, or its GPU, has held."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_STATUS: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was in use: of the GPU, or else of this process."""
    import resource

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Linux, in KiB. getrusage counts what the program before this one in the process held, too.
    found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(found[1]) * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Begin to count anew, from what is held now, where the system allows it."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # then the peak is that of all that the process has done
        _RESET.write_text("5")  # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
