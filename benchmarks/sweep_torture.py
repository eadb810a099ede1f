"""Kill trials, nodes and the driver of a sweep at random, and see what is lost.

python benchmarks/sweep_torture.py --output benchmarks/results/sweep-torture.json

A sweep of small trials runs on a simulated cluster twice: left alone, and disturbed by SIGKILL of
random trials, nodes and drivers; a killed driver is started again with the same command. Nothing is
lost when every trial of the disturbed sweep ends with the metrics of the one that was left alone.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from kovar.resources import Cluster, NodeType
from kovar.simulation import SimulatedCluster
from kovar.tuning.ledger import read_ledger
from kovar.tuning.state import SweepState

SWEEP = Path(__file__).parents[1] / "tune" / "sweep.py"
GIB = 1 << 30
POLL_S = 0.1
WORDS = (("good", "great", "lovely", "moving"), ("bad", "dull", "boring", "weak"))


def main(argv: list[str] | None = None) -> int:
    """Run both sweeps, compare them, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps of a trial")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of one CPU each")
    parser.add_argument("--kill-trials", type=int, default=8)
    parser.add_argument("--kill-nodes", type=int, default=3)
    parser.add_argument("--kill-drivers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kovar-torture-") as temporary:
        spec = write_sweep(Path(temporary), options.trials, options.steps)
        with SimulatedCluster(cluster_of(options.nodes), dashboard=False) as cluster:
            alone = Drive(spec, Path(temporary) / "alone", cluster)
            alone.run([], random.Random(options.seed))
            disturbed = Drive(spec, Path(temporary) / "disturbed", cluster)
            blows = (
                ["trial"] * options.kill_trials
                + ["node"] * options.kill_nodes
                + ["driver"] * options.kill_drivers
            )
            disturbed.run(blows, random.Random(options.seed))
        found = compared(alone, disturbed) | {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "packages": {name: installed(name) for name in ("ray", "torch", "transformers")},
        }
        if found["trials"] != options.trials or found["lost"]:
            sys.stderr.write((Path(temporary) / "disturbed.log").read_text()[-4000:])
    text = json.dumps(found, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n")
    is_whole = found["trials"] == options.trials and found["lost"] == 0
    return 0 if is_whole and found["same_metrics"] and found["same_best"] else 1


def cluster_of(num_nodes: int) -> Cluster:
    """Declare a head without CPUs and some nodes of one CPU each."""
    return Cluster(
        (
            NodeType("head", 0, memory_bytes=GIB, min_count=1, max_count=1, is_head=True),
            NodeType(
                "cpu",
                1,
                memory_bytes=4 * GIB,
                min_count=num_nodes,
                max_count=num_nodes,
                price_per_hour=0.1,
            ),
        ),
        max_workers=num_nodes,
        origin="the torture",
    )


def write_sweep(folder: Path, num_trials: int, num_steps: int) -> Path:
    """Write made-up reviews, and a sweep over a model that is drawn at random."""
    rows = ["text,label"]
    for row in range(240):
        words = WORDS[row % 2]
        rows.append(f"the film is {words[row // 2 % len(words)]} {row},{'pn'[row % 2]}")
    (folder / "reviews.csv").write_text("\n".join(rows) + "\n")
    rates = [round(1e-3 * 1.05**n, 7) for n in range(num_trials)]
    base = {
        "kind": "finetune",
        "name": "torture",
        "model": {
            "config": {
                "model_type": "bert",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "max_position_embeddings": 64,
            },
            "tokenizer": {"kind": "characters", "vocab_size": 300, "lowercase": True},
        },
        "data": {"source": "reviews.csv", "evaluation": 40, "max_length": 64},
        "training": {
            "epochs": 1000,
            "max_steps": num_steps,
            "max_tokens": 512,
            "evaluate_every": 10,
            "checkpoint_every": 10,
        },
        "precision": "fp32",
        "max_failures": 100,
    }
    search = {"training.learning_rate": {"kind": "grid", "values": rates}}
    path = folder / "sweep.yaml"
    path.write_text(
        json.dumps({"kind": "sweep", "name": "torture", "base": base, "search": search})
    )
    return path


@dataclass
class Drive:
    """One sweep, whoever drives it.

    Args:
        spec: the sweep's file.
        home: where its runs go.
        cluster: where its trials run.
    """

    spec: Path
    home: Path
    cluster: SimulatedCluster
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    exit_code: int = -1

    @property
    def ledger(self) -> Path | None:
        """The ledger, once there is one."""
        return next(iter(self.home.glob("runs/torture-*/ledger.jsonl")), None)

    @property
    def state(self) -> SweepState:
        """What the ledger says."""
        return SweepState.of(read_ledger(self.ledger)) if self.ledger else SweepState()

    def run(self, blows: list[str], chance: random.Random) -> None:
        """Drive the sweep to its end, and strike meanwhile."""
        began = time.monotonic()
        chance.shuffle(blows)
        driver, seen = self._start(), 0
        while True:
            if driver.poll() is not None:
                self.exit_code = driver.returncode
                break
            time.sleep(POLL_S)
            told = self._num_reports()
            if not blows or told < seen + chance.randint(2, 6):
                continue
            seen = told
            if self._strike(blows[-1], driver, chance):
                self.done[blows.pop()] += 1
            if driver.poll() is not None:
                driver.wait()
                driver = self._start()
        self.seconds = time.monotonic() - began

    def _num_reports(self) -> int:
        ledger = self.ledger
        return ledger.read_text().count('"entry": "reported"') if ledger else 0

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **self.cluster.environment,
            "KOVAR_HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
        }
        log = (self.home.parent / f"{self.home.name}.log").open("ab")
        return subprocess.Popen(
            [sys.executable, str(SWEEP), str(self.spec), "--json"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

    def _strike(self, what: str, driver: subprocess.Popen[bytes], chance: random.Random) -> bool:
        """Kill one thing; say whether there was one."""
        if what == "driver":
            driver.kill()
            driver.wait()
            return True
        if what == "node":
            nodes = [node.id for node in self.cluster.nodes() if node.type != "head"]
            if nodes:
                self.cluster.kill_node(chance.choice(nodes))
            return bool(nodes)
        pids = self._pids()
        if not pids:
            return False
        try:
            os.kill(chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _pids(self) -> list[int]:
        """Return the processes of the trials that run."""
        ledger, found = self.ledger, {}
        for entry in read_ledger(ledger) if ledger else ():
            number = entry.fields.get("trial")
            if entry.kind == "reported" and "pid" in entry.fields:
                found[number] = entry.fields["pid"]
            elif entry.kind in ("interrupted", "ended", "started"):
                found.pop(number, None)
            elif entry.kind == "opened":
                found.clear()
        return list(found.values())


def compared(alone: Drive, disturbed: Drive) -> dict[str, Any]:
    """Hold the disturbed sweep against the one that was left alone."""
    first, second = alone.state, disturbed.state
    stays = [stay.outcome for trial in second.trials.values() for stay in trial.stays]
    lost = [n for n, t in first.trials.items() if second.trials.get(n) is None
            or second.trials[n].status != t.status]  # fmt: skip
    return {
        "trials": len(first.trials),
        "killed": dict(disturbed.done),
        "lost": len(lost),
        "same_metrics": ends_of(first) == ends_of(second),
        "same_best": best_of(first) == best_of(second),
        "best": best_of(second),
        "drivers": len(second.sessions),
        "stays": dict(Counter(stays)),
        "seconds_alone": round(alone.seconds, 1),
        "seconds_disturbed": round(disturbed.seconds, 1),
        "exit_codes": [alone.exit_code, disturbed.exit_code],
    }


def ends_of(state: SweepState) -> dict[int, Any]:
    """Return the final metrics and the digest of the weights of each trial."""
    return {
        number: (trial.end["metrics"], trial.end["weights_digest"])
        for number, trial in sorted(state.trials.items())
        if trial.end is not None
    }


def best_of(state: SweepState) -> dict[str, Any] | None:
    """Return the best trial's point and metrics."""
    ended = [
        (trial.end["metrics"]["accuracy"], -trial.number, trial.point, trial.end["metrics"])
        for trial in state.trials.values()
        if trial.end is not None
    ]
    if not ended:
        return None
    *_, point, metrics = max(ended, key=lambda one: one[:2])
    return {"point": point, "metrics": metrics}


if __name__ == "__main__":
    sys.exit(main())
