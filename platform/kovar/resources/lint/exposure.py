"""Ports that strangers could reach: whoever reaches Ray's ports can run code on the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kovar.config import FieldPath
from kovar.resources.lint.cluster_yaml import ClusterYaml, Command
from kovar.resources.lint.finding import Finding

PORTS: Final[Mapping[int, str]] = {
    6379: "the cluster's state (GCS)",
    8000: "Serve's HTTP",
    8076: "the object store",
    8265: "the dashboard and the job server",
    10001: "Ray Client",
}
_ANYWHERE: Final = ("0.0.0.0/0", "::/0")
_EVERY_ADDRESS = re.compile(r"--dashboard-host[= ]+[\"']?(0\.0\.0\.0|::|\*)(?![\d.])")
_PUBLISHED = re.compile(r"(?:-p|--publish)[= ]*(?:0\.0\.0\.0:)?(\d+):")


def check_exposure(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report a dashboard on every address, ports open to the world, and disabled tokens."""
    if cluster.is_simulated:
        return
    for command in cluster.all_commands():
        yield from _dashboard(cluster, command)
        yield from _firewall_command(cluster, command)
        yield from _tokens(cluster, command)
    if not cluster.items(("head_start_ray_commands",)):
        yield cluster.error(
            ("head_start_ray_commands",),
            "dashboard-open",
            "Ray's default command starts the dashboard with --dashboard-host=0.0.0.0",
            fix="write head_start_ray_commands with --dashboard-host=127.0.0.1; `ray dashboard` "
            "reaches it through SSH",
        )
    for index, rule in enumerate(cluster.items(("provider", "security_group", "IpPermissions"))):
        if isinstance(rule, Mapping):
            path: FieldPath = ("provider", "security_group", "IpPermissions", index)
            yield from _inbound_rule(cluster, path, rule)
    for key in ("run_options", "head_run_options", "worker_run_options"):
        for index, option in enumerate(cluster.items(("docker", key))):
            yield from _published_port(cluster, ("docker", key, index), str(option))


def _dashboard(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    if match := _EVERY_ADDRESS.search(command.text):
        yield cluster.error(
            command.path,
            "dashboard-open",
            f"the dashboard and the job server listen on every address ({match[1]})",
            fix="use --dashboard-host=127.0.0.1; `ray dashboard` reaches it through SSH",
            part="--dashboard-host",
        )


def _firewall_command(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    if "firewall-rules" not in command.text and "authorize-security-group-ingress" not in (
        command.text
    ):
        return
    ports = [port for port in PORTS if re.search(rf"(?<!\d){port}(?!\d)", command.text)]
    if ports and any(source in command.text for source in _ANYWHERE):
        yield cluster.error(
            command.path,
            "port-open",
            f"port {ports[0]} ({PORTS[ports[0]]}) is opened to the whole Internet",
            fix="remove it, and use `ray dashboard` or an SSH tunnel",
            part=str(ports[0]),
        )


def _tokens(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    if re.search(r"\bRAY_AUTH_MODE=[\"']?disabled", command.text):
        yield cluster.error(
            command.path,
            "auth-disabled",
            "requests need no token: whoever reaches a port can run code",
            fix="use RAY_AUTH_MODE=token, and file_mounts for ~/.ray/auth_token",
            part="RAY_AUTH_MODE",
        )


def _inbound_rule(
    cluster: ClusterYaml, path: FieldPath, rule: Mapping[str, Any]
) -> Iterator[Finding]:
    sources = [
        str(item.get(key))
        for group, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"))
        for item in rule.get(group) or []
        if isinstance(item, Mapping)
    ]
    first, last = rule.get("FromPort"), rule.get("ToPort")
    if not isinstance(first, int) or not isinstance(last, int) or first < 0:
        first, last = 0, 65535
    open_ports = [port for port in PORTS if first <= port <= last]
    if open_ports and any(source in _ANYWHERE for source in sources):
        yield cluster.error(
            path,
            "port-open",
            f"port {open_ports[0]} ({PORTS[open_ports[0]]}) is open to the whole Internet",
            fix="give the addresses of your own network, or remove the rule and use "
            "`ray dashboard`",
        )


def _published_port(cluster: ClusterYaml, path: FieldPath, option: str) -> Iterator[Finding]:
    for port in map(int, _PUBLISHED.findall(option)):
        if port in PORTS:
            yield cluster.error(
                path,
                "port-open",
                f"port {port} ({PORTS[port]}) of the container is published on every address",
                fix=f"remove it, or publish on loopback: -p 127.0.0.1:{port}:{port}",
            )
