"""What the figures of serving.py come to, each beside its target."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from kovar.precision import detect_device

VERSIONS = ("ray", "torch", "transformers", "onnxruntime", "openvino", "uvicorn")
OF_RAW = {"proxy": 0.5, "haproxy": 0.7}
TIMES = {"pattern": 4.0, "fastapi": 5.0, "bentoml": 1.3, "mlserver": 1.3}

FLOODS = {"flood": "3 × the capacity", "flood_many": "3 × the capacity, 16 texts a request"}

Figures = dict[str, dict[str, Any]]


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "chip": detect_device("cpu").name,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
    }


def ratios(results: dict[str, dict[str, Figures]]) -> list[dict[str, Any]]:
    """Return every figure that has a target.

    Args:
        results: by runtime and by ingress; what has none is under `alone`.
    """
    found = []
    for runtime, places in results.items():
        alone = places.get("alone", {})
        for ingress in sorted(set(places) - {"alone"}):
            figures = places[ingress]
            rows = [
                *_against_raw(figures, alone, OF_RAW[ingress]),
                *_against_contenders(figures, alone),
                *_in_trouble(figures),
                *_after_deaths(figures),
            ]
            found += [{"runtime": runtime, "ingress": ingress} | row for row in rows]
    return found


def _row(name: str, value: float, *, least: float | None = None, most: float | None = None) -> Any:
    met = (least is None or value >= least) and (most is None or value <= most)
    target = f"≥ {least:g}" if least is not None else f"≤ {most:g}"
    return {"name": name, "value": value, "target": target, "met": met}


def _against_raw(figures: Figures, alone: Figures, of_raw: float) -> list[Any]:
    if "raw" not in alone:
        return []
    rate, forward = alone["raw"]["texts_per_s"], alone["raw"]["p50_ms"]
    rows = []
    if "single" in figures:
        share = figures["single"]["texts_per_s"] / rate
        rows.append(_row("single texts, of the raw runtime", share, least=of_raw))
    if "many" in figures:
        share = figures["many"]["texts_per_s"] / rate
        rows.append(_row("16 texts a request, of the raw runtime", share, least=0.9))
    if "unloaded" in figures:
        over = figures["unloaded"]["p50_ms"] - forward
        rows.append(_row("unloaded p50 over the forward pass, ms", over, most=5.0))
    return rows


def _against_contenders(figures: Figures, alone: Figures) -> list[Any]:
    rows = []
    for name, least in TIMES.items():
        contender = figures.get(name) or alone.get(name)  # Ray Serve's has an ingress, too
        if contender and "single" in figures:
            times = figures["single"]["texts_per_s"] / contender["texts_per_s"]
            rows.append(_row(f"single texts, times {name}", times, least=least))
    return rows


def _in_trouble(figures: Figures) -> list[Any]:
    rows = []
    for figure, title in FLOODS.items():
        if figure in figures:
            found = figures[figure]
            rows += _overloaded(title, found, found["goodput_of_capacity"])
    if "overload" in figures and "single" in figures:
        found = figures["overload"]
        goodput = found["texts_per_s"] / figures["single"]["texts_per_s"]
        rows += _overloaded("1,000 clients", found, goodput)
    if "slow" in figures and "steady" in figures:
        times = figures["slow"]["p99_ms"] / figures["steady"]["p99_ms"]
        rows.append(_row("500 half-open clients: times the p99", times, most=1.2))
    if "memory" in figures:
        grown = figures["memory"]["after_mib"] / figures["memory"]["after_tenth_mib"]
        rows.append(_row("memory after 100,000 requests, of 10,000", grown, most=1.05))
    return rows


def _overloaded(title: str, found: dict[str, float], goodput: float) -> list[Any]:
    rows = [_row(f"{title}: goodput of capacity", goodput, least=0.9)]
    if "refusal_p50_ms" in found:
        rows.append(_row(f"{title}: refusal p50, ms", found["refusal_p50_ms"], most=10.0))
    return [*rows, _row(f"{title}: recovery, s", found["recovery_s"], most=2.0)]


def _after_deaths(figures: Figures) -> list[Any]:
    rows = [
        _row(f"{part} killed: requests lost", figures[part]["lost"], most=0)
        for part in ("replica", "controller")
        if part in figures
    ]
    if "one_of_two" in figures:
        lost = figures["one_of_two"]["lost"]
        rows.append(_row("one of two proxies killed: requests lost", lost, most=0))
    if "proxy" in figures:
        rows.append(_row("proxy killed: seconds without", figures["proxy"]["silence_s"], most=6.0))
    return rows
