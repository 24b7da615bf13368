"""Imports point one way, and nothing heavy is imported at module level. Walks the real folders, not the links."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {
        "__init__", "volume", "linalg", "fourier", "measurement", "noise", "noise_maps", "units", "spectrum",
        "discover", "manifest",
    },
    {"io", "operators", "models", "metrics"},
    {"diffusion"},
    {"solvers", "corrections"},
    {"pipeline", "simulate", "raw", "evaluate", "picture", "report", "data", "training", "diagnose"},
    {"demo"},
    {"cli", "__main__"},
)  # fmt: skip
SIBLINGS = {"io", "operators", "models", "metrics"}  # one layer, and never import each other
TENSORS_ONLY = {
    "linalg", "fourier", "measurement", "noise_maps", "spectrum", "operators", "models", "metrics", "diffusion",
    "solvers", "corrections",
}  # fmt: skip
HEAVY = {
    "astra", "sigpy", "monai", "pydicom", "highdicom", "nibabel", "h5py", "matplotlib", "scipy", "skimage", "PIL",
    "openjpeg", "pylibjpeg", "numba", "cupy", "finufft", "ismrmrd", "twixtools",
}  # fmt: skip
FORBIDDEN = {"torchvision", "piq", "lpips", "pylibjpeg_libjpeg", "libjpeg", "pickle", "torchmetrics"}


def files() -> Iterator[tuple[str, Path]]:
    """(module name, file) of every module of the package."""
    for folder, package in ((ROOT / "medrecon", "medrecon"), (ROOT / "operators", "medrecon.operators"),
                            (ROOT / "models", "medrecon.models")):  # fmt: skip
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            inside_link = package == "medrecon" and parts[0] in ("operators", "models")
            if not inside_link:
                yield ".".join((package, *parts)), path


def imports(tree: ast.AST, module: str, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """(imported module, inside a function?) of a file; TYPE_CHECKING blocks count as inside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
            # `from medrecon import io` imports medrecon.io.
            names = [f"medrecon.{a.name}" for a in node.names] if base == "medrecon" else [base]
            yield from ((name, inside) for name in names)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from imports(node, module, inside or function or checking)


def layer(part: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if part in names), -1)


def violations(module: str, source: str) -> list[str]:
    """What a file does that the architecture forbids."""
    here = module.split(".")[1]
    found = [] if layer(here) >= 0 else [f"{module}: {here!r} has no layer: give it one in LAYERS"]
    for name, inside in imports(ast.parse(source), module):
        top, *rest = name.split(".")
        there = rest[0] if rest else "__init__"
        there = there if layer(there) >= 0 else "__init__"  # a name such as __version__
        if top in ("operators", "models"):
            found.append(f"{module}: import {name}: write medrecon.{name}")
        elif top in FORBIDDEN:
            found.append(f"{module}: {top} must not be used")
        elif top in HEAVY and not inside and not (top == "numba" and module.endswith("_kernels")):
            found.append(f"{module}: {top} is imported at module level: import it in the function that uses it")
        elif top == "medrecon" and there != here and layer(there) > layer(here):
            found.append(f"{module} imports {name}: wrong direction")
        elif top == "medrecon" and there != here and {here, there} <= SIBLINGS:
            found.append(f"{module} imports {name}: {here} and {there} do not know each other")
        elif name == "medrecon.volume" and here in TENSORS_ONLY:
            found.append(f"{module} imports Volume: {here} knows tensors only")
    return found


def test_imports_point_one_way() -> None:
    modules = list(files())
    assert {m.split(".")[1] for m, _ in modules} > {"volume", "operators", "models", "solvers", "metrics"}
    assert [v for module, path in modules for v in violations(module, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("medrecon.operators.x", "def f():\n    from medrecon.solvers.base import Solver", "wrong direction"),
        ("medrecon.operators.x", "from ..solvers import base", "wrong direction"),
        ("medrecon.operators.x", "from medrecon.models.base import Prior", "do not know each other"),
        ("medrecon.diffusion.x", "from medrecon import pipeline", "wrong direction"),
        ("medrecon.solvers.x", "from medrecon.volume import Volume", "tensors only"),
        ("medrecon.solvers.x", "import operators.ct", "write medrecon.operators.ct"),
        ("medrecon.io.x", "try:\n    import pydicom\nexcept ImportError:\n    pass", "module level"),
        ("medrecon.io.x", "class C:\n    import h5py", "module level"),
        ("medrecon.operators.joseph", "import numba", "module level"),
        ("medrecon.report", "def f():\n    import torchvision", "must not be used"),
        ("medrecon.newcomer", "", "no layer"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str, complaint: str) -> None:
    assert any(complaint in v for v in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("medrecon.solvers.x", "from medrecon.operators.base import whiten\nfrom medrecon.solvers.tv import TV"),
        ("medrecon.io.x", "def f():\n    import pydicom"),
        ("medrecon.io.x", "if TYPE_CHECKING:\n    import pydicom"),
        ("medrecon.operators.x_kernels", "import numba"),
        ("medrecon.cli", "from medrecon import __version__, pipeline"),
    ],
)
def test_allowed_imports_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_weights_are_never_unpickled() -> None:
    """Weights are safetensors: torch.load can run code from a file."""
    calls = [
        f"{module}:{node.lineno}"
        for module, path in files() for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) == "torch"
    ]  # fmt: skip
    assert calls == []
