"""Imports point one way, and nothing heavy is imported at module level. Walks the real folders, not the links."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT: dict[str, str] = {
    "__init__": "",
    "geometry": "",
    "numerics": "",
    "core": "numerics geometry",
    "sampling": "core numerics",
    "kspace": "numerics sampling",
    "coils": "core numerics sampling kspace",
    "operators": "core numerics geometry sampling kspace coils",
    "models": "core numerics",
    "quality": "core numerics",
    "diffusion": "core numerics operators models",
    "solvers": "core numerics kspace coils operators models diffusion",
    "corrections": "core numerics geometry operators",
    "acquisition": "core numerics geometry coils operators corrections",
    "pipeline": "core numerics geometry sampling kspace coils operators models quality solvers",
    "runs": "core numerics pipeline solvers",
    "formats": "core numerics geometry corrections acquisition",
    "simulate": "core numerics geometry sampling coils operators corrections",
    "data": "core formats",
    "training": "core numerics models quality formats simulate data",
    "diagnose": "core numerics models diffusion quality data training",
    "demo": "core models quality formats simulate pipeline",
    "cli": "core numerics acquisition sampling operators models diffusion quality formats simulate pipeline runs data "
    "training diagnose demo",
    "__main__": "cli",
}
"""Each folder and what it may import, every one named above its users: an arrow that is not here is an error."""
TENSORS_ONLY = {"numerics", "kspace", "coils", "operators", "models", "diffusion", "solvers", "corrections"}
"""Folders that know no Volume and no Scan."""
HEAVY = {
    "astra",
    "sigpy",
    "monai",
    "pydicom",
    "highdicom",
    "nibabel",
    "h5py",
    "matplotlib",
    "scipy",
    "skimage",
    "PIL",
    "openjpeg",
    "pylibjpeg",
    "numba",
    "cupy",
    "finufft",
    "ismrmrd",
    "twixtools",
}
FORBIDDEN = {"torchvision", "piq", "lpips", "pylibjpeg_libjpeg", "libjpeg", "pickle", "torchmetrics"}


def files() -> Iterator[tuple[str, Path]]:
    """(module name, file) of every module of the package."""
    for folder, package in (
        (ROOT / "medrecon", "medrecon"),
        (ROOT / "operators", "medrecon.operators"),
        (ROOT / "models", "medrecon.models"),
    ):
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


def violations(module: str, source: str) -> list[str]:
    """What a file does that the architecture forbids."""
    here = module.split(".")[1]
    if here not in MAY_IMPORT:
        return [f"{module}: {here!r} has no place: give it one in MAY_IMPORT"]
    found, allowed = [], {here, "__init__", *MAY_IMPORT[here].split()}
    for name, inside in imports(ast.parse(source), module):
        top, *rest = name.split(".")
        there = rest[0] if rest and rest[0] in MAY_IMPORT else "__init__"  # a name such as __version__
        if top in ("operators", "models"):
            found.append(f"{module}: import {name}: write medrecon.{name}")
        elif top in FORBIDDEN:
            found.append(f"{module}: {top} must not be used")
        elif top in HEAVY and not inside and not (top == "numba" and module.endswith("_kernels")):
            found.append(f"{module}: {top} is imported at module level: import it in the function that uses it")
        elif top == "medrecon" and there not in allowed:
            found.append(f"{module} imports {name}: wrong direction")
        elif name in ("medrecon.core.volume", "medrecon.core.scan") and here in TENSORS_ONLY:
            found.append(f"{module} imports {name}: {here} knows tensors only")
    return found


def circles(files: list[tuple[str, Path]]) -> list[list[str]]:
    """Groups of modules that import each other at module level, directly or by way of others."""
    known = {module.removesuffix(".__init__") for module, _ in files}
    arrows: dict[str, set[str]] = {}
    for module, path in files:
        name = module.removesuffix(".__init__")
        found = targets(ast.parse(path.read_text()), known)
        arrows[name] = {target for target in found if target in known and target != name}
    return [sorted(group) for group in strongly_connected(arrows) if len(group) > 1]


def targets(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Modules a file imports, inside functions too; `from package import module` counts as that module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (name if name in known else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def strongly_connected(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(arrows[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            groups.append(set(stack[at:]))
            del stack[at:]

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return groups


def test_the_table_is_an_order() -> None:
    """Nothing may import what is named after it, but the engine and its solvers, which still know each other."""
    seen: list[str] = []
    for folder, allowed in MAY_IMPORT.items():
        later = set(allowed.split()) - set(seen)
        assert later <= ({"solvers"} if folder == "diffusion" else set()), f"{folder} imports {later}"
        seen.append(folder)


def test_no_circles() -> None:
    assert circles(sorted(files())) == []


def test_a_planted_circle_is_caught(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from medrecon.x import b")
    (tmp_path / "b.py").write_text("import medrecon.x.c")
    (tmp_path / "c.py").write_text("from medrecon.x.a import f")
    planted = [(f"medrecon.x.{name}", tmp_path / f"{name}.py") for name in "abc"]
    assert circles(planted) == [["medrecon.x.a", "medrecon.x.b", "medrecon.x.c"]]
    assert circles(planted[1:]) == []


def test_imports_point_one_way() -> None:
    modules = sorted(files())
    assert {m.split(".")[1] for m, _ in modules} > {"core", "operators", "models", "solvers", "quality"}
    assert [v for module, path in modules for v in violations(module, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("medrecon.operators.x", "def f():\n    from medrecon.solvers.base import Solver", "wrong direction"),
        ("medrecon.operators.x", "from ..solvers import base", "wrong direction"),
        ("medrecon.operators.x", "from medrecon.models.prior import Prior", "wrong direction"),
        ("medrecon.diffusion.samplers.x", "from medrecon import pipeline", "wrong direction"),
        ("medrecon.solvers.x", "from medrecon.core.volume import Volume", "tensors only"),
        ("medrecon.pipeline.x", "from medrecon.diagnose.run import diagnose", "wrong direction"),
        ("medrecon.data.x", "from medrecon.training.config import TrainConfig", "wrong direction"),
        ("medrecon.solvers.x", "from medrecon.corrections import rings", "wrong direction"),
        ("medrecon.quality.evaluate", "from medrecon.formats.raw_data import read_raw", "wrong direction"),
        ("medrecon.solvers.x", "import operators.ct", "write medrecon.operators.ct"),
        ("medrecon.formats.x", "try:\n    import pydicom\nexcept ImportError:\n    pass", "module level"),
        ("medrecon.formats.x", "class C:\n    import h5py", "module level"),
        ("medrecon.operators.ct.joseph.planar", "import numba", "module level"),
        ("medrecon.quality.report", "def f():\n    import torchvision", "must not be used"),
        ("medrecon.newcomer", "", "no place"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str, complaint: str) -> None:
    assert any(complaint in v for v in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("medrecon.solvers.x", "from medrecon.operators.algebra import whiten\nfrom medrecon.numerics import linalg"),
        ("medrecon.formats.x", "def f():\n    import pydicom"),
        ("medrecon.formats.x", "if TYPE_CHECKING:\n    import pydicom"),
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
        for module, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) == "torch"
    ]
    assert calls == []


def test_hdf5_is_opened_in_one_place() -> None:
    """Which refuses links to other files, for every reader there is or will be."""
    calls = {
        module
        for module, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("h5py.File", "h5py.h5f.open", "ismrmrd.Dataset")
    }
    assert calls == {"medrecon.formats.common.hdf5"}
