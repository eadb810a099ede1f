import subprocess
import sys

import kovar.resources


def test_everything_in_all_exists_and_is_sorted():
    names = kovar.resources.__all__
    assert names == sorted(names)
    assert all(hasattr(kovar.resources, name) for name in names)


def test_planning_imports_neither_ray_nor_torch():
    code = (
        "import sys, kovar.resources, kovar.precision;"
        "print({'ray', 'torch'} & sys.modules.keys() or 'neither')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "neither"
