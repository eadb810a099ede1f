"""Energy that a process used: counters of the CPU package (RAPL) or of an NVIDIA GPU (NVML).

A package's counter knows nothing of processes, so a process is given the share that it had of the
processor time of the machine. A GPU's counter is that of the whole card, so a trial that asked for
a part of it is given that part. RAPL: https://docs.kernel.org/power/powercap/powercap.html, whose
files only root may read on most systems. NVML: nvmlDeviceGetTotalEnergyConsumption, from Volta on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import ctypes

POWERCAP: Final = Path("/sys/class/powercap")


class EnergyMeter(Protocol):
    """Energy since it was opened."""

    def read(self) -> float:
        """Return joules; to be called now and then, since counters wrap around."""


class PackageEnergy:
    """Energy of the CPU packages, as far as this process used them.

    Args:
        domains: RAPL's folders of whole packages.
        clock: returns this process's seconds of processor time, and all processes' together.
    """

    def __init__(
        self, domains: list[Path], *, clock: Callable[[], tuple[float, float]] | None = None
    ) -> None:
        self._domains = domains
        self._clock = clock or processor_seconds
        self._ranges = [_number(domain / "max_energy_range_uj") for domain in domains]
        self._counts = self._count()
        self._own, self._all = self._clock()
        self._joules = 0.0

    @classmethod
    def open(cls, root: Path = POWERCAP) -> PackageEnergy | None:
        """Open the counters of this machine; None where it has none, or none that may be read."""
        domains = [
            domain
            for domain in sorted(root.glob("intel-rapl:*"))
            if domain.name.count(":") == 1 and os.access(domain / "energy_uj", os.R_OK)
        ]
        return cls(domains) if domains else None

    def read(self) -> float:
        """Return this process's joules since the counters were opened."""
        counts = self._count()
        own, everything = self._clock()
        wrapped = zip(counts, self._counts, self._ranges, strict=True)
        microjoules = sum((now - before) % (size + 1) for now, before, size in wrapped)
        used, passed = own - self._own, everything - self._all
        if passed > 0:
            self._joules += microjoules / 1e6 * min(1.0, used / passed)
            self._counts, self._own, self._all = counts, own, everything
        return self._joules

    def _count(self) -> list[int]:
        return [_number(domain / "energy_uj") for domain in self._domains]


def _number(path: Path) -> int:
    return int(path.read_text())


def processor_seconds() -> tuple[float, float]:
    """Return the processor time of this process, and of all processes, since the system started."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return own.user + own.system, busy


class CardEnergy:
    """Energy of this process's GPU.

    Args:
        joules: reads the card's own counter.
        share: part of the card that the trial asked for.
    """

    def __init__(self, joules: Callable[[], float], *, share: float) -> None:
        self._joules = joules
        self._share = min(1.0, share)
        self._before = joules()

    def read(self) -> float:
        """Return the trial's joules since the counter was opened."""
        return (self._joules() - self._before) * self._share


def open_energy(device_type: str, *, share: float = 1.0) -> EnergyMeter | None:
    """Open the counter of what this process computes on; None where there is none.

    Args:
        device_type: torch's name of the kind of device.
        share: part of a GPU that was asked for.
    """
    if device_type == "cpu":
        return PackageEnergy.open()
    counter = _card_counter() if device_type == "cuda" else None
    return None if counter is None else CardEnergy(counter, share=share)


def _card_counter() -> Callable[[], float] | None:
    """Return what reads the counter of the current GPU; None where NVML does not tell it."""
    import ctypes

    import torch

    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    card = ctypes.c_void_p()
    name = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(
        name.encode(), ctypes.byref(card)
    ):
        return None
    return _reader(library, card)


def _reader(library: ctypes.CDLL, card: ctypes.c_void_p) -> Callable[[], float] | None:
    import ctypes

    count = ctypes.c_ulonglong()

    def joules() -> float:
        library.nvmlDeviceGetTotalEnergyConsumption(card, ctypes.byref(count))
        return count.value / 1000

    failed = library.nvmlDeviceGetTotalEnergyConsumption(card, ctypes.byref(count))
    return None if failed else joules
