"""Where the trials of a sweep would run."""

from kovar.resources import Cluster, NodeType
from kovar.tuning import load_sweep
from kovar.tuning.plan import plan_sweep
from tiny_sweep import write_sweep

WORKERS = {"kind": "grid", "values": [{"kind": "cpu", "cpus": 1.0}, {"kind": "cpu", "cpus": 2.0}]}


def test_trials_of_several_kinds_of_hardware_share_the_limit_of_the_sweep(tmp_path):
    path = write_sweep(tmp_path, {"resources.worker": WORKERS}, max_concurrent=1)
    node = NodeType("node", 8, memory_bytes=32 << 30, min_count=1, is_head=True)
    planned = plan_sweep(load_sweep(path), Cluster((node,)))
    assert len(planned.groups) == 2
    assert planned.num_at_once == 1
