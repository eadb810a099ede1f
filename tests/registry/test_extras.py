"""What an optional dependency is needed for says so, with the command that installs it."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules["{library}"] = None  # as if it were not installed
from pathlib import Path
from kovar.errors import exit_code_of
from kovar.registry.exchange import export_mlflow
from kovar.registry.signing_keys import generate_keys
sys.exit(exit_code_of(lambda: {call}))
"""


@pytest.mark.parametrize(
    ("library", "call", "extra"),
    [
        ("cryptography", "generate_keys(Path('key'))", "signing"),
        ("mlflow", "export_mlflow(None, None, 'sqlite:///mlflow.db')", "mlflow"),
    ],
)
def test_without_the_library_the_extra_is_named(tmp_path, library, call, extra):
    code = WITHOUT.format(library=library, call=call)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert f'pip install "kovar-platform[{extra}]"' in done.stderr
