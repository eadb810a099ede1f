"""Serving a MiniLM classifier over HTTP, asked from a second process on loopback.

usage: python benchmarks/serving.py [--only single many …] [--seconds 10] [--rounds 3] [--threads 2]
           [--parallel 1]
           [--runtime torch] [--precision auto] [--ingress proxy haproxy] [--quick]
           [--environments FOLDER]

Prints a table and adds to benchmarks/results/serving.json, after each figure. The version is MiniLM
with a new head, made for the occasion (its answers do not matter here); the texts are real movie
reviews. The figures that others are compared with (raw, single, many, unloaded, and the contenders)
are taken in turn in each round, and their medians count. --quick halves the times and keeps no
results; every figure can be asked for alone with --only:

- raw: what a replica loads, in this process, all texts in batches of like length, as many at a time
  as in the replica: what HTTP is held against.
- single: requests of one text, 64 in flight, with wrk as well where it is installed; many: of 16
  texts, 32 in flight.
- unloaded: one request at a time; beside it the time of the forward pass.
- steady: open loop at 70 % of what `single` answers.
- flood: open loop of three times what `single` answers, for six times as long, then half of what it
  can, to see how soon it recovers; flood_many: the same with requests of 16 texts. What is answered
  while the flood lasts is its goodput. overload: 1,000 clients that ask again as soon as they are
  refused, for as long.
- replica, proxy, controller: one of them is killed in the middle of an open loop at 50 %; two
  replicas. With HAProxy the proxy is its process. outage_s: between the first request that broke
  and the last; silence_s: the longest time without an answer.
- one_of_two: one of two proxies of Serve, each on a node of its own, is killed in the same way;
  what breaks is asked again up to three times. Both nodes are on this machine, and share the port.
- slow: `steady` with 500 connections whose requests never end.
- memory: resident memory of the replica before 100,000 requests (--quick: 10,000), after the first
  tenth, in which it grows to the size of its batches, and after all.
- cold: seconds from the first request at zero replicas to its answer, the median of three, and the
  stages of the replica's own start, which are a part of it.
- pattern, fastapi, bentoml, mlserver: `single`, `many` and `unloaded` with Ray Serve's documented
  pattern on Ray Serve's own settings, with FastAPI, with BentoML, and with MLServer. The last two
  serve the ONNX file that Kovar serves with --runtime onnx --precision fp32, in virtual
  environments that are made at first use in the cache folder or in --environments.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving_environment import OUTSIDERS
from serving_load import Requests, facts, generator, load, outcome_of, silence, wrk
from serving_process import Server, open_server
from serving_ratios import machine, ratios
from serving_subject import Subject

RESULTS = Path(__file__).parent / "results" / "serving.json"
SHARING = (
    "single", "many", "unloaded", "steady", "flood", "flood_many", "overload", "slow", "memory"
)  # fmt: skip
DEATHS = ("replica", "proxy", "controller")
CONTENDERS = ("pattern", "fastapi", *OUTSIDERS)
FIGURES = ("raw", *SHARING, *DEATHS, "one_of_two", "cold", *CONTENDERS)
REPEATED = ("raw", "single", "many", "unloaded", *CONTENDERS)
INGRESSES = ("proxy", "haproxy")
IN_FLIGHT = 64
TEXTS_OF_MANY = 16
MANY_IN_FLIGHT = 32
CROWD = 1000
"""Clients that ask at once, and again as soon as they are refused."""
DEATH_S = 40.0
"""Seconds of load when a part is killed after the fifth: longer than any part has been away."""

SAME = 1e-3
"""How far a contender's probabilities may be from torch's in fp32."""


@contextmanager
def served(kind: str, subject: Subject, **changes: Any) -> Iterator[Server]:
    """Run a server for the duration of the block, warm."""
    server = open_server(kind, subject, **changes)
    try:
        # A contender's first figure is `unloaded`: BentoML goes on to hold a lone request for as
        # long as requests waited under earlier load.
        load(server, subject.groups(1), seconds=3, clients=8 if kind == "kovar" else 1)
        check(server, subject)
        yield server
    finally:
        server.close()


def check(server: Server, subject: Subject) -> None:
    """Make sure that a server answers, and a contender as the version was evaluated."""
    scores = server.scores(subject.groups(len(subject.expected))[0])
    off = max(abs(one - other) for one, other in zip(scores, subject.expected, strict=True))
    if server.kind != "kovar" and off > SAME:  # Kovar's replicas compare golden examples
        raise SystemExit(f"{server.kind} answers otherwise: by {off}")


class Benchmark:
    """The figures, and what some of them take from others."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.seconds = subject.options.seconds / (2 if subject.options.quick else 1)
        self.rounds: dict[str, list[dict[str, float]]] = {}
        self._measured_capacity: float | None = None

    @property
    def results(self) -> dict[str, Any]:
        """The medians of the rounds, and the rounds where there are several."""
        return {
            name: {key: statistics.median(one[key] for one in taken) for key in taken[0]}
            | ({"rounds": taken} if len(taken) > 1 else {})
            for name, taken in self.rounds.items()
        }

    def raw(self) -> dict[str, float]:
        """Run all texts in this process."""
        runtime, texts = self.subject.runtime(), self.subject.texts
        parallel = self.subject.options.parallel
        shares = [texts[start::parallel] for start in range(parallel)]
        rates, singles = [], []
        with ThreadPoolExecutor(parallel) as lanes:
            list(lanes.map(runtime.predict, shares))
            for _ in range(3):
                began = time.perf_counter()
                list(lanes.map(runtime.predict, shares))
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
        groups = self.subject.groups(1)
        found = facts(load(server, groups, seconds=self.seconds, clients=IN_FLIGHT))
        return found | wrk(server, groups, self.seconds, clients=IN_FLIGHT)

    def many(self, server: Server) -> dict[str, float]:
        """Ask sixteen texts at a time."""
        groups = self.subject.groups(TEXTS_OF_MANY)
        requests = load(server, groups, seconds=self.seconds, clients=MANY_IN_FLIGHT)
        return facts(requests, texts=TEXTS_OF_MANY)

    def unloaded(self, server: Server) -> dict[str, float]:
        """Ask one after the other."""
        return facts(load(server, self.subject.groups(1), seconds=self.seconds / 2, clients=1))

    def steady(self, server: Server) -> dict[str, float]:
        """Offer 70 % of what it can."""
        return facts(self._offered(server, 0.7))

    def flood(self, server: Server) -> dict[str, float]:
        """Offer three times what it can."""
        return self._flood(server, self._capacity(server), size=1)

    def flood_many(self, server: Server) -> dict[str, float]:
        """Offer three times what it can in requests of many texts."""
        if "many" in self.results:
            rate = self.results["many"]["texts_per_s"]
        else:
            rate = self.many(server)["texts_per_s"]
        return self._flood(server, rate / TEXTS_OF_MANY, size=TEXTS_OF_MANY)

    def _flood(self, server: Server, capacity: float, *, size: int) -> dict[str, float]:
        groups, seconds = self.subject.groups(size), 6 * self.seconds
        found = load(server, groups, phases=[[seconds, 3 * capacity]])
        in_time = sum(
            status == 200 and moment + taken <= seconds for moment, taken, status in found
        )
        goodput = {"goodput_of_capacity": in_time / seconds / capacity}
        return facts(found, texts=size) | goodput | self._refusals(server, found, capacity, size)

    def overload(self, server: Server) -> dict[str, float]:
        """Ask with more clients than it can answer in time."""
        capacity = self._capacity(server)
        found = load(server, self.subject.groups(1), seconds=6 * self.seconds, clients=CROWD)
        end = max(moment + seconds for moment, seconds, _ in found)
        offered = {"offered_of_capacity": len(found) / end / capacity}
        return facts(found) | offered | self._refusals(server, found, capacity, 1)

    def _refusals(
        self, server: Server, found: Requests, capacity: float, size: int
    ) -> dict[str, float]:
        """Return how soon it refused, and how soon after that it was itself again."""
        after = load(server, self.subject.groups(size), phases=[[self.seconds, 0.5 * capacity]])
        late = [moment for moment, seconds, status in after if status != 200 or seconds > 0.5]
        recovery = {"recovery_s": max(late, default=0.0)}
        refusals = sorted(seconds for _, seconds, status in found if status == 429)
        if not refusals:
            return recovery
        slowest = refusals[int(0.99 * (len(refusals) - 1))]
        p50 = 1e3 * statistics.median(refusals)
        return {"refusal_p50_ms": p50, "refusal_p99_ms": 1e3 * slowest} | recovery

    def slow(self, server: Server) -> dict[str, float]:
        """Offer 70 % beside 500 requests that never end."""
        return facts(self._offered(server, 0.7, half_open=500))

    def memory(self, server: Server) -> dict[str, float]:
        """Ask very often."""
        wanted, answered = 10_000 if self.subject.options.quick else 100_000, 0
        sizes = {"before_mib": server.tell("rss")["replica"]}
        while answered < wanted:
            requests = load(server, self.subject.groups(1), seconds=20, clients=IN_FLIGHT)
            answered += sum(status == 200 for *_, status in requests)
            if answered >= wanted / 10:
                sizes.setdefault("after_tenth_mib", server.tell("rss")["replica"])
        return {"requests": answered, **sizes, "after_mib": server.tell("rss")["replica"]}

    def death(self, server: Server, part: str, *, tries: int = 1) -> dict[str, float]:
        """Kill a part in the middle of load."""
        phases = [[DEATH_S, 0.5 * self._capacity(server)]]
        running = generator(server, self.subject.groups(1), phases=phases, tries=tries)
        time.sleep(5)
        if not server.tell(f"kill {part}"):
            raise SystemExit(f"no {part} was found to kill")
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
                server, self.subject.groups(1)[:1], seconds=0.1, clients=1
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
            requests = load(server, self.subject.groups(1), **job)
            self._measured_capacity = facts(requests)["texts_per_s"]
        return self._measured_capacity

    def _offered(self, server: Server, share: float, **job: Any) -> Requests:
        phases = [[self.seconds, share * self._capacity(server)]]
        return load(server, self.subject.groups(1), phases=phases, **job)


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
    found = re.findall(r"(\w+) ([\d.]+) s", started.rpartition(": ")[2])
    return {f"{stage}_s": float(seconds) for stage, seconds in found}


def measure(benchmark: Benchmark, wanted: list[str]) -> None:
    """Take the figures that are wanted, those that share a server together."""

    def take(name: str, found: dict[str, float]) -> None:
        benchmark.rounds.setdefault(name, []).append(found)
        save(benchmark)
        where = benchmark.subject.options.ingress
        print(f"{where:<8}{name:<20} {_shown(found)}", flush=True)

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
    if "one_of_two" in wanted:
        with served("kovar", subject, nodes=2, num_replicas=2) as server:
            take("one_of_two", benchmark.death(server, "one_of_two", tries=4))
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
                take(f"{kind} unloaded", benchmark.unloaded(server))
                load(server, subject.groups(1), seconds=3, clients=8)
                take(kind, benchmark.single(server))
                take(f"{kind} many", benchmark.many(server))


def save(benchmark: Benchmark) -> None:
    """Add the figures to those of other options; quick ones are not kept."""
    options = benchmark.subject.options
    if options.quick:
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    parts = [f"{options.runtime} {options.precision}", f"{options.threads} threads"]
    if options.parallel > 1:
        parts.append(f"{options.parallel} batches at a time")
    name = ", ".join(parts)
    found = known.setdefault("results", {}).setdefault(name, {})
    for figure, values in benchmark.results.items():
        # What has nothing to do with the ingress is taken once for all of them.
        kind = figure.split()[0]
        place = "alone" if kind in ("raw", "fastapi", *OUTSIDERS) else options.ingress
        found.setdefault(place, {})[figure] = values
    known |= {"machine": machine(), "ratios": ratios(known["results"])}
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


def _shown(found: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:,.1f}" for name, value in found.items())


def main() -> None:
    """Take the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ingress", nargs="+", choices=INGRESSES, default=["proxy"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--environments", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(Path(folder), options)
        benchmarks = [Benchmark(subject.behind(ingress)) for ingress in options.ingress]
        for _ in range(options.rounds):
            for benchmark in benchmarks:
                first = benchmark is benchmarks[0]
                of_ingress = [name for name in options.only if name in REPEATED]
                shared = (*SHARING, "pattern")
                measure(benchmark, [one for one in of_ingress if first or one in shared])
        for benchmark in benchmarks:
            measure(benchmark, [name for name in options.only if name not in REPEATED])


if __name__ == "__main__":
    main()
