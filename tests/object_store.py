"""A real server of the S3 protocol on a free port of the loopback interface, in a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

SERVER = """
import logging, sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore:
    """A running server.

    Args:
        address: its host and port.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def create_bucket(self, name: str) -> str:
        """Create a bucket and return the URL of an artifact root in it."""
        httpx.put(f"http://{self.address}/{name}").raise_for_status()
        options = f"endpoint_override={self.address}&scheme=http&region=us-east-1"
        return f"s3://{name}/models?{options}"


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """Start a server; end it with the block."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield ObjectStore(":".join(process.stdout.readline().split()))
        process.stdin.close()
