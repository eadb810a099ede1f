"""`kovar top` shows applications that have no replica: asleep, or not deployed, and why."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kovar.cli import app
from kovar.cli.top import traffic_table
from kovar.errors import UserError
from kovar.serving.observe.serve_status import ServeStatus, parse_status, read_status
from kovar.serving.observe.traffic import Reading, traffic_between, with_status

PAGE = """\
ray_kovar_version_info{application="films",model="m",version="3",digest="ab",replica="r1"} 1
ray_kovar_queued_texts{application="films",replica="r1"} 7
"""


def replicas(*states):
    return [{"state": state, "replica_id": str(n)} for n, state in enumerate(states)]


def deployment(target, *states, status="HEALTHY", message=""):
    facts = {"status": status, "message": message, "target_num_replicas": target}
    return {"Replica": facts | {"replicas": replicas(*states)}}


DETAILS = {
    "applications": {
        "films": {"status": "RUNNING", "message": "",
                  "deployments": deployment(2, "RUNNING", "STARTING")},
        "night": {"status": "RUNNING", "message": "", "deployments": deployment(0)},
        "broken": {"status": "DEPLOY_FAILED", "message": "failed to update ['Replica']",
                   "deployments": deployment(1, status="DEPLOY_FAILED",
                                             message="Traceback\nKovarError: blob missing\n")},
        "early": {"status": "DEPLOYING", "message": "", "deployments": {}},
    }
}  # fmt: skip


@pytest.fixture
def url(monkeypatch) -> Iterator[str]:
    """Serve the metrics page and Serve's status."""
    monkeypatch.delenv("RAY_DASHBOARD_ADDRESS", raising=False)

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"/metrics": PAGE, "/api/serve/applications/": json.dumps(DETAILS)}
            text = found.get(self.path)
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_application_tells_its_replicas_and_why_it_is_not_well():
    found = parse_status(DETAILS)
    assert found["films"] == ServeStatus(status="RUNNING", message="", num_running=1, num_target=2)
    assert found["broken"].message.startswith("failed to update")
    assert found["broken"].message.endswith("KovarError: blob missing")
    assert [name for name, one in found.items() if one.is_asleep] == ["night"]
    assert parse_status({}) == {}


def test_the_names_that_are_read_are_those_of_ray():
    from ray.serve.schema import (
        ApplicationDetails,
        ApplicationStatus,
        DeploymentDetails,
        ReplicaDetails,
        ServeInstanceDetails,
    )

    assert "applications" in ServeInstanceDetails.model_fields
    assert {"status", "message", "deployments"} <= set(ApplicationDetails.model_fields)
    wanted = {"status", "message", "target_num_replicas", "replicas"}
    assert wanted <= set(DeploymentDetails.model_fields)
    assert "state" in ReplicaDetails.model_fields
    assert ApplicationStatus.RUNNING == "RUNNING"


def test_a_dashboard_that_does_not_answer_is_no_error(url):
    assert set(read_status(url + "/") or {}) == set(DETAILS["applications"])
    assert read_status(url + "/elsewhere") is None
    assert read_status("http://127.0.0.1:1") is None
    assert read_status(None) is None
    with pytest.raises(UserError, match="not an http"):
        read_status("127.0.0.1:8265")


def test_applications_without_metrics_stand_beside_those_with():
    before = traffic_between(None, Reading(0.0, ()))
    found = {one.application: one for one in with_status(before, parse_status(DETAILS))}
    assert sorted(found) == ["broken", "early", "films", "night"]
    assert found["broken"].serve.status == "DEPLOY_FAILED"
    assert (found["night"].versions, found["night"].queued_texts) == ((), 0)


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_says_what_sleeps_and_why_another_failed(width):
    found = with_status((), parse_status(DETAILS))
    console = Console(width=width, record=True)
    console.print(traffic_table(found, [], width=width))
    shown = console.export_text()
    (night,) = (line for line in shown.splitlines() if line.startswith("night"))
    assert "asleep" in night
    assert "0/0" in night
    assert "broken: deploy failed: KovarError: blob missing" in shown


def top(*arguments):
    return CliRunner().invoke(app, ["top", *arguments], catch_exceptions=False).output


def test_json_has_metrics_and_status(url):
    facts = json.loads(top("--json", "--metrics", f"{url}/metrics", "--dashboard", url))
    assert facts["knows_status"]
    found = {one["application"]: one for one in facts["applications"]}
    assert found["films"]["queued_texts"] == 7
    assert (found["films"]["serve"]["num_running"], found["films"]["serve"]["num_target"]) == (1, 2)
    assert (found["night"]["versions"], found["night"]["serve"]["status"]) == ([], "RUNNING")


def test_without_a_dashboard_the_metrics_are_shown_all_the_same(url):
    facts = json.loads(top("--json", "--metrics", f"{url}/metrics"))
    (films,) = facts["applications"]
    assert (facts["knows_status"], films["serve"]) == (False, None)
    assert films["versions"][0]["version"] == "3"
    assert "no dashboard tells" in top("--once", "--metrics", f"{url}/metrics")
