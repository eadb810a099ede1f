"""Load for serving.py: what is generated in another process, and what its outcome says."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from serving_dialect import Dialect

CLIENT = Path(__file__).parent / "serving_client.py"

Requests = list[tuple[float, float, int]]
"""Of each request: the moment it was sent, the seconds it took, its status."""


class Asked(Protocol):
    """A server, as a load generator sees it."""

    port: int
    dialect: Dialect


def generator(server: Asked, groups: Sequence[Sequence[str]], **job: Any) -> subprocess.Popen[str]:
    """Start the load generator; each group of texts is one request, see serving_client.py."""
    process = subprocess.Popen(
        [sys.executable, str(CLIENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    bodies = [server.dialect.body(texts) for texts in groups]
    given = {"port": server.port, "path": server.dialect.path, "bodies": bodies} | job
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    return process


def outcome_of(process: subprocess.Popen[str]) -> Requests:
    """Wait for the load generator."""
    found: Requests = json.loads(process.communicate()[0])
    return found


def load(server: Asked, groups: Sequence[Sequence[str]], **job: Any) -> Requests:
    """Generate load; return the requests."""
    return outcome_of(generator(server, groups, **job))


def facts(requests: Requests, *, texts: int = 1) -> dict[str, float]:
    """Sum up requests; the latencies are of those that were answered."""
    answered = sorted(seconds for _, seconds, status in requests if status == 200)
    end = max(moment + seconds for moment, seconds, _ in requests)
    found = {
        "texts_per_s": texts * len(answered) / end,
        "requests": len(requests),
        "refused": sum(status == 429 for *_, status in requests),
        "lost": sum(status not in (200, 429) for *_, status in requests),
    }
    if answered:
        found |= {
            "p50_ms": 1e3 * statistics.median(answered),
            "p99_ms": 1e3 * answered[int(0.99 * (len(answered) - 1))],
        }
    return found


def silence(requests: Requests) -> float:
    """Return the longest time between two answers."""
    answers = sorted(moment + seconds for moment, seconds, status in requests if status == 200)
    return max((after - before for before, after in pairwise(answers)), default=math.inf)


WRK_SCRIPT = """
local bodies, number = {}, 0
for line in io.lines(%r) do bodies[#bodies + 1] = line end
wrk.headers["content-type"] = "application/json"
request = function()
  number = number + 1
  return wrk.format("POST", nil, nil, bodies[number %% #bodies + 1])
end
"""


def wrk(
    server: Asked, groups: Sequence[Sequence[str]], seconds: float, *, clients: int
) -> dict[str, float]:
    """Ask the same with wrk, where it is installed."""
    if shutil.which("wrk") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder, "bodies"), Path(folder, "ask.lua")
        lines.write_text("".join(json.dumps(server.dialect.body(texts)) + "\n" for texts in groups))
        script.write_text(WRK_SCRIPT % str(lines))
        options = ["-t", "1", "-c", str(clients), "-d", f"{max(1, round(seconds))}s"]
        url = f"http://127.0.0.1:{server.port}{server.dialect.path}"
        done = subprocess.run(
            ["wrk", *options, "-s", str(script), url], capture_output=True, text=True, check=True
        )
    return {"wrk_texts_per_s": len(groups[0]) * answered_per_second(done.stdout)}


def answered_per_second(report: str) -> float:
    """Return the requests of wrk's report that were answered with a status below 400."""
    (rate,) = re.findall(r"^Requests/sec:\s+([\d.]+)", report, re.MULTILINE)
    (number,) = re.findall(r"(\d+) requests in", report)
    refused = re.findall(r"Non-2xx or 3xx responses: (\d+)", report)
    return float(rate) * (1 - sum(map(int, refused)) / max(1, int(number)))
