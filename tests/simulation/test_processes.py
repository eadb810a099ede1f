import os
import select
import subprocess
import sys

from kovar.simulation.processes import descendants

PARENT = """
import os, subprocess, sys
from kovar.simulation.processes import adopt_orphans, end_with_parent, kill_descendants
{before}
child = subprocess.Popen([sys.executable, "-c", {child!r}], preexec_fn={preexec}, stdout=-1)
print(int(child.stdout.readline()), flush=True)
{after}
"""
WAITS = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
LEAVES_AN_ORPHAN = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WAITS!r}], stdout=-1)
print(int(child.stdout.readline()), flush=True)
"""


def started(code: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_child_ends_with_its_parent():
    code = PARENT.format(before="", child=WAITS, preexec="end_with_parent", after="input()")
    process, child = started(code)
    assert descendants(process.pid) == [child]
    handle = os.pidfd_open(child)
    with process:
        process.kill()
    assert select.select([handle], [], [], 30)[0]
    os.close(handle)


def test_an_orphan_is_adopted_and_killed():
    code = PARENT.format(
        before="adopt_orphans()",
        child=LEAVES_AN_ORPHAN,
        preexec="None",
        after="child.wait(); input(); kill_descendants(deadline_s=30)",
    )
    process, orphan = started(code)
    handle = os.pidfd_open(orphan)
    with process:
        assert process.communicate("\n", timeout=30)[0] == ""
    assert process.returncode == 0
    assert select.select([handle], [], [], 0)[0]
    os.close(handle)
