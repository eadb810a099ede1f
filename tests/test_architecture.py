"""The structure that the design promises: import direction, light imports, no stray packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "platform" / "kovar"

# A room may import rooms of its own line to its left, and every room of a later line.
LINES = [
    ["planning", "quickstart", "cli"],
    ["simulation", "training", "tuning", "serving", "batch"],
    ["data", "models", "inference", "evaluation"],
    ["registry", "resources", "precision", "events"],
    ["config", "settings"],
    ["errors"],
]
FORBIDDEN = {("serving", "training"), ("serving", "tuning")}
HEAVY = {"torch", "ray", "transformers", "datasets", "matplotlib", "sklearn", "pandas"}


def rooms() -> list[str]:
    names = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or path.is_dir()}
    return sorted(names - {"__init__", "__main__", "__pycache__", "py", "recipes"} - {"py.typed"})


def imports_of(room: str) -> set[str]:
    source = LIBRARY / room
    files = sorted(source.rglob("*.py")) if source.is_dir() else [source.with_suffix(".py")]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found


def test_every_room_stands_in_the_drawing():
    assert set(rooms()) <= {room for line in LINES for room in line}


def test_an_import_of_a_room_itself_is_seen():
    assert "kovar.errors" in imports_of("training")  # from kovar import errors


@pytest.mark.parametrize("room", rooms())
def test_no_room_imports_a_higher_one(room):
    level = next(number for number, line in enumerate(LINES) if room in line)
    left = LINES[level][: LINES[level].index(room)]
    allowed = {room, *left, *(name for line in LINES[level + 1 :] for name in line)}
    imported = {name.split(".")[1] for name in imports_of(room) if name.startswith("kovar.")}
    imported -= {"__version__"}
    assert imported <= allowed
    assert not {(room, name) for name in imported} & FORBIDDEN


@pytest.mark.parametrize(
    ("room", "library"),
    [("registry", "torch"), ("registry", "ray"), ("inference", "ray"), ("data", "ray")],
)
def test_a_room_does_not_use_a_library_that_it_must_not_know(room, library):
    assert not {name for name in imports_of(room) if name.split(".")[0] == library}


KNOW_RAY = {
    "cluster.py", "placing.py", "resizing.py", "tokenizing.py", "waiting.py", "worker.py",
}  # fmt: skip
ENGINE = sorted(p for p in (LIBRARY / "training").rglob("*.py") if p.name not in KNOW_RAY)


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_the_engine_does_not_know_ray(path):
    tree = ast.parse(path.read_text())
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "ray"]


@pytest.mark.parametrize("module", [f"kovar.{room}" for room in rooms()])
def test_importing_a_room_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_platform_is_never_a_package():
    assert not (ROOT / "platform" / "__init__.py").exists()
    code = "import platform; print(platform.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert Path(done.stdout.strip()).name == "platform.py"


@pytest.mark.parametrize(
    "package", [path.parent.name for path in sorted(LIBRARY.glob("*/__init__.py"))]
)
def test_a_room_exports_exactly_what_it_says(package):
    module = __import__(f"kovar.{package}", fromlist=["__all__"])
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [name for name in module.__all__ if not hasattr(module, name)]
