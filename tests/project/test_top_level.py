"""What a user calls lies at the top of the package, costs nothing to import, and is known to editors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medrecon

ROOT = Path(__file__).parents[2]
TOP = {"LinearOperator", "Measurement", "evaluate", "from_kspace", "from_sinogram", "load_prior", "reconstruct"}


def stubs() -> dict[str, str]:
    """Name and module of everything that `__init__.pyi` imports."""
    tree = ast.parse((ROOT / "medrecon" / "__init__.pyi").read_text())
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or "": node.module or "" for node in nodes for alias in node.names}


def test_names_are_there_and_type_checkers_see_the_same() -> None:
    assert set(stubs()) == set(medrecon._AT_HOME) == TOP
    assert stubs() == medrecon._AT_HOME
    for name in TOP:
        found = getattr(medrecon, name)
        assert found.__module__ == medrecon._AT_HOME[name] and found.__name__ == name
    assert set(dir(medrecon)) >= {*TOP, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'recontruct'; at the top are LinearOperator, "):
        medrecon.recontruct  # noqa: B018


def test_looking_at_it_imports_nothing() -> None:
    """Neither `dir`, nor asking for what is not there, nor a sub-package, loads torch or what else is heavy."""
    code = (
        "import sys, time\n"
        "start = time.perf_counter(); import medrecon; took = time.perf_counter() - start\n"
        "dir(medrecon); hasattr(medrecon, 'nothing'); import medrecon.core\n"
        "print(took, *sys.modules)"
    )
    took, *modules = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "numpy", "scipy", "pydantic", "medrecon.pipeline", "medrecon.acquisition"} & set(modules)
    assert float(took) < 0.1
