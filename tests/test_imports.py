"""The house: imports point one way, kernels stay pure, and nothing heavy is loaded for --help."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cryodask"
LEVELS = [
    {"arrays"},
    {"kernels", "optics", "geometry"},
    {"search", "io", "cluster"},
    {"picking"},
    {"results"},
    {"jobs", "simulate"},
    {"cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
IMPURE = {"dask", "distributed", "xarray", "zarr", "mrcfile", "starfile", "h5py", "pandas"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "errors":
        assert not [name for name in imported(path) if name.startswith("cryodask.")]
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "cryodask" or len(parts) < 2 or parts[1] not in LEVEL or parts[1] == room:
            continue
        assert LEVEL[parts[1]] <= LEVEL[room], f"{room} imports {name}"
        assert not (room == "kernels" and parts[1] == "optics"), f"kernels import {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) == "kernels"], ids=lambda p: p.name)
def test_kernels_are_pure_array_functions(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imported(path)} & IMPURE


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numpy", "dask", "xarray", "numba", "matplotlib", "pandas", "zarr")
    code = (
        "import sys\nfrom cryodask.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "match-tomogram" in done.stdout
