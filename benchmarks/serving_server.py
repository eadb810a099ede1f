"""A server that serving.py asks: Kovar, or what a user would write instead.

usage: python serving_server.py kovar|pattern|fastapi PORT FOLDER [JSON of the serving spec [NODES]]

With 2 NODES, Ray has two of them on this machine, each with a proxy on the same port. FOLDER holds
the settings' places and `model/`, the version's files. Prints a line `{"answer": …}` when it
answers requests, and one for each line of its input (see `answer`); ends with it.

- pattern: Ray Serve's documentation: a transformers pipeline behind @serve.batch.
- fastapi: FastAPI under uvicorn, a transformers pipeline for each request.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
MAX_LENGTH = 64
"""Tokens of a text that the version reads, which the folder's tokenizer tells Kovar alone."""

CPUS_PER_NODE = 1
"""Where there are several: one replica fills a node."""

CUT = {"truncation": True, "max_length": MAX_LENGTH}


def start_ray(port: int, *, nodes: int = 1, **options: Any) -> None:
    """Start a Ray and a Serve of our own; `options` are those of `serve.start`."""
    import ray
    from ray import serve

    if nodes == 1:
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    else:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": CPUS_PER_NODE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=CPUS_PER_NODE)
        ray.init(address=cluster.address, log_to_driver=False)
    place = {"host": "127.0.0.1", "port": port, "location": "EveryNode"}
    serve.start(http_options=place, **options)


def kovar(port: int, spec: dict[str, Any], nodes: int) -> None:
    """Serve the registered version."""
    from ray import serve

    from kovar.serving import build
    from kovar.serving.environment import prepare

    if "KOVAR_BENCHMARK_PLAIN" not in os.environ:
        prepare(os.environ)
    # As in the files under serve/: the access log is Kovar's own.
    log = {"encoding": "JSON", "enable_access_log": False}
    start_ray(port, nodes=nodes, logging_config=log)
    serve.run(build(spec), name="bench", route_prefix="/")


def pattern(port: int, folder: Path) -> None:
    """Serve as Ray's documentation does: dynamic batches around a pipeline."""
    from ray import serve
    from starlette.requests import Request

    start_ray(port)
    model = str(folder / "model")

    @serve.deployment(max_ongoing_requests=200)
    class Classifier:
        def __init__(self) -> None:
            import torch
            from transformers import pipeline

            torch.set_num_threads(THREADS)
            self.pipeline = pipeline("text-classification", model=model, top_k=None)

        @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
        async def classify(self, texts: list[str]) -> list[Any]:
            return list(self.pipeline(texts, batch_size=len(texts), **CUT))

        async def __call__(self, request: Request) -> Any:
            texts = (await request.json())["inputs"]
            return [await self.classify(text) for text in texts]

    serve.run(Classifier.bind(), name="bench", route_prefix="/v1/predict")


def fastapi(port: int, folder: Path) -> None:
    """Serve a pipeline by FastAPI."""
    import torch
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    torch.set_num_threads(THREADS)
    model = pipeline("text-classification", model=str(folder / "model"), top_k=None)
    app = FastAPI()

    @app.post("/v1/predict")
    def predict(body: dict[str, Any]) -> Any:
        return model(body["inputs"], **CUT)

    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)


def processes() -> dict[str, list[int]]:
    """Return the pids of Serve's parts on this machine, among our own children."""
    import psutil

    # What takes the requests: with HAProxy, Serve's own proxy stands idle beside it.
    proxy = "haproxy" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else "ray::ProxyActor"
    signs = {
        "replica": "ray::ServeReplica:bench",
        "proxy": proxy,
        "controller": "ray::ServeController",
    }
    found: dict[str, list[int]] = {part: [] for part in signs}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = "".join(process.cmdline()[:1]).rsplit("/", 1)[-1]
            for part, sign in signs.items():
                if title.startswith(sign):
                    found[part].append(process.pid)
    return found


def answer(line: str) -> Any:
    """Do what a line asks for: `kill PART`, `rss` or `replicas`."""
    import psutil

    match line.split():
        case ["kill", part]:
            pids = processes()["proxy" if part == "one_of_two" else part]
            # One of the replicas, but also a HAProxy that drains after a change.
            killed = pids if part == "proxy" else pids[:1]
            if part == "one_of_two" and len(pids) != 2:
                raise ValueError(f"there are {len(pids)} proxies")
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            return len(killed)
        case ["rss"]:
            return {
                part: sum(psutil.Process(pid).memory_info().rss for pid in pids) / (1 << 20)
                for part, pids in processes().items()
            }
        case ["replicas"]:
            return len(processes()["replica"])
    raise ValueError(f"cannot {line}")


def main() -> None:
    """Serve until the input ends."""
    kind, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    spec = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    match kind:
        case "kovar":
            kovar(port, spec, int(sys.argv[5]) if len(sys.argv) > 5 else 1)
        case "pattern":
            pattern(port, folder)
        case "fastapi":
            fastapi(port, folder)
    print(json.dumps({"answer": "ready"}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"answer": answer(line)}), flush=True)
    if kind != "fastapi":
        import ray

        ray.shutdown()


if __name__ == "__main__":
    main()
