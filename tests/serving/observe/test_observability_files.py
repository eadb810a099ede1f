"""The files under serve/observability: what Prometheus and Grafana read of them is right."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from kovar.serving.observe.metrics import EXPOSED, METRICS
from prometheus import promtool

FOLDER = Path(__file__).parents[3] / "serve" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
DOCUMENTED = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
OF_RAY = {"ray_serve_deployment_replica_healthy"}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


def test_prometheus_accepts_the_configuration_and_every_rule():
    promtool("check", "config", FOLDER / "prometheus.yaml")
    promtool("check", "rules", FOLDER / "alerts.yaml")


def test_prometheus_accepts_every_expression_of_the_dashboard(tmp_path):
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    plain = [
        text.replace("$__rate_interval", "1m").replace("$application", ".*") for text in expressions
    ]
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(plain)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_only_metrics_that_exist(panel):
    for target in panel["targets"]:
        found = names_in(target["expr"])
        assert found
        assert found <= EXPOSED | OF_RAY


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_uses_metrics_that_exist_and_says_what_to_do(rule):
    found = names_in(rule["expr"])
    assert found
    assert found <= EXPOSED | OF_RAY
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["action"].endswith(".")
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [panel["gridPos"] for panel in panels]
    for one, other in itertools.combinations(boxes, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart
        assert one["x"] + one["w"] <= 24


def test_every_metric_is_on_the_dashboard_and_in_the_guide():
    text = json.dumps(DASHBOARD)
    for metric in METRICS:
        assert any(name in text for name in metric.exposed), metric.name
        assert f"| `{metric.exposed[0].removesuffix('_bucket')}` |" in DOCUMENTED, metric.name


def expected(alert: str, labels: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return an alert as promtool writes what it expects."""
    rule = next(rule for rule in RULES if rule["alert"] == alert)
    summary = rule["annotations"]["summary"]
    for name, value in labels.items():
        summary = summary.replace("{{ $labels." + name + " }}", value)
    return {
        "exp_labels": labels | rule["labels"],
        "exp_annotations": rule["annotations"] | {"summary": summary},
    }


def check_alerts(folder: Path, series: dict[str, str], alerts: list[dict[str, object]]) -> None:
    """Let promtool evaluate the rules on series, once a minute."""
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {
        "rule_files": [str(FOLDER / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": alerts}],
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(test))
    promtool("test", "rules", path)


def test_the_rules_of_overload_and_failures_fire(tmp_path):
    name = 'ray_kovar_requests_total{application="a",model="m",version="1",outcome="%s"}'
    series = {name % "answered": "0+600x30", name % "internal": "0+0x10 0+60x20"}
    failures = expected("KovarFailures", {"application": "a", "model": "m", "version": "1"})
    alerts = [
        {"eval_time": "9m", "alertname": "KovarFailures"},
        {"eval_time": "25m", "alertname": "KovarFailures", "exp_alerts": [failures]},
    ]
    check_alerts(tmp_path, series, alerts)


@pytest.mark.parametrize("outcome", ["queue_full", "bodies_full", "deadline_exceeded"])
def test_the_rule_of_overload_fires_whatever_is_full(tmp_path, outcome):
    name = 'ray_kovar_requests_total{application="a",model="m",version="1",outcome="%s"}'
    series = {name % "answered": "0+600x30", name % outcome: "0+0x10 0+60x20"}
    overload = expected("KovarOverload", {"application": "a"})
    alerts = [
        {"eval_time": "9m", "alertname": "KovarOverload"},
        {"eval_time": "25m", "alertname": "KovarOverload", "exp_alerts": [overload]},
    ]
    check_alerts(tmp_path, series, alerts)


def test_the_queue_counts_over_all_models_and_padding_for_each(tmp_path):
    of = '{application="a",model="%s",version="1",replica="r"}'
    series = {"ray_kovar_queued_texts" + of % model: "200x70" for model in "mn"}
    for model, padded in (("m", 110), ("n", 300)):
        series["ray_kovar_tokens_total" + of % model] = "0+100x70"
        series["ray_kovar_padded_tokens_total" + of % model] = f"0+{padded}x70"
    queue = expected("KovarQueue", {"application": "a", "replica": "r"})
    padding = expected("KovarPadding", {"application": "a", "model": "n", "version": "1"})
    alerts = [
        {"eval_time": "65m", "alertname": "KovarQueue", "exp_alerts": [queue]},
        {"eval_time": "65m", "alertname": "KovarPadding", "exp_alerts": [padding]},
    ]
    check_alerts(tmp_path, series, alerts)


def test_the_rule_of_no_replica_fires_for_what_had_one_and_may_not_sleep(tmp_path):
    name = 'ray_serve_deployment_replica_healthy{application="%s",deployment="model",replica="r"}'
    sleeps = 'ray_kovar_may_sleep{application="%s",replica="r"}'
    series = {
        name % "gone": "1x12 0 0 stale",
        sleeps % "gone": "0x12 stale",
        name % "asleep": "1x12 0 0 stale",
        sleeps % "asleep": "1x12 stale",
        name % "alive": "1x40",
        sleeps % "alive": "0x40",
    }
    alert = expected("KovarNoReplica", {"application": "gone"})
    alerts = [
        {"eval_time": "11m", "alertname": "KovarNoReplica"},
        {"eval_time": "15m", "alertname": "KovarNoReplica", "exp_alerts": [alert]},
        {"eval_time": "40m", "alertname": "KovarNoReplica", "exp_alerts": [alert]},
    ]
    check_alerts(tmp_path, series, alerts)


def test_two_versions_of_a_model_are_mixed_only_where_replicas_serve_unlike_ones(tmp_path):
    name = 'ray_kovar_version_info{application="%s",model="m",digest="%s",replica="%s"}'
    on_purpose = [name % ("both", digest, replica) for digest in "xy" for replica in "rs"]
    stuck = [name % ("stuck", "x", "r"), name % ("stuck", "y", "s")]
    alert = expected("KovarMixedVersions", {"application": "stuck", "model": "m"})
    alerts = [{"eval_time": "40m", "alertname": "KovarMixedVersions", "exp_alerts": [alert]}]
    check_alerts(tmp_path, dict.fromkeys([*on_purpose, *stuck], "1x40"), alerts)
