"""The package list equals the tree; sdist, wheel and editable install import; nothing here needs a network."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("astra", "sigpy", "monai", "pydicom", "highdicom", "nibabel", "h5py", "matplotlib", "skimage", "numba")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMPORT = (
    "import pathlib, medrecon, medrecon.operators.base, medrecon.models.store, medrecon.solvers.base;"
    "print(medrecon.__version__, pathlib.Path(medrecon.operators.base.__file__).resolve(),"
    "*medrecon.models.store.SHIPPED.glob('*'))"
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_FIND_LINKS")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree: building writes into the source folder."""
    target = tmp_path_factory.mktemp("checkout") / "medrecon"
    names = (".*_cache", ".venv", ".git", "__pycache__", "build", "dist", "*.egg-info", "demo-output")
    skip = shutil.ignore_patterns(*names)

    def outputs(folder: str, found: list[str]) -> set[str]:
        return skip(folder, found) | ({"runs"} if Path(folder) == ROOT else set())

    return Path(shutil.copytree(ROOT, target, symlinks=True, ignore=outputs))


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """Folder with the sdist and the wheel built from that sdist."""
    out = checkout.parent / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=checkout.parent)
    return out


def packages_in_tree() -> set[str]:
    found = set()
    for folder, package in (
        (ROOT / "medrecon", "medrecon"),
        (ROOT / "operators", "medrecon.operators"),
        (ROOT / "models", "medrecon.models"),
    ):
        for init in folder.rglob("__init__.py"):
            found.add(".".join((package, *init.parent.relative_to(folder).parts)))
    return found


def test_package_list_equals_the_tree() -> None:
    listed = SETUP["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_in_tree())
    assert listed == sorted(set(listed))


def test_no_module_lies_outside_a_package() -> None:
    folders = {p.parent for top in ("medrecon", "operators", "models") for p in (ROOT / top).rglob("*.py")}
    assert [f for f in folders if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("name", ["operators", "models"])
def test_links_are_relative_and_committed(name: str) -> None:
    link = ROOT / "medrecon" / name
    assert link.is_symlink() and os.readlink(link) == f"../{name}"
    if (ROOT / ".git").exists():
        assert run("git", "ls-files", "-s", f"medrecon/{name}", cwd=ROOT).startswith("120000 ")


def test_wheel_from_sdist_has_everything_and_imports(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("medrecon", ""), ("operators", "operators/"), ("models", "models/")):
        for path in (ROOT / folder).rglob("*.py"):
            assert f"medrecon/{inside}{path.relative_to(ROOT / folder).as_posix()}" in names
    for path in (ROOT / "models" / "weights").glob("*"):
        assert f"medrecon/models/weights/{path.name}" in names
    assert {"medrecon/py.typed", "medrecon/__init__.pyi"} <= names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert not any(n.startswith(("operators/", "models/", "tests/")) for n in names)

    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    out = run(sys.executable, "-c", IMPORT, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert str((tmp_path / "site" / "medrecon" / "operators" / "base.py").resolve()) in out
    assert out.count("weights") == len(list((ROOT / "models" / "weights").glob("*")))


def test_sdist_keeps_the_top_level_folders(built: Path) -> None:
    import tarfile

    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"operators/base.py", "models/prior.py", "medrecon/core/volume.py", "pyproject.toml"} <= names
    assert {"LICENSE", "README.md"} <= names


def test_editable_install_imports_from_the_checkout(checkout: Path, tmp_path: Path) -> None:
    """In a virtual environment that sees this one's packages, with no network; a new file is seen at once."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "-e",
        checkout,
        cwd=tmp_path,
    )
    assert str(checkout / "operators" / "base.py") in run(python, "-c", IMPORT, cwd=tmp_path)
    (checkout / "operators" / "newcomer.py").write_text("here = True\n")
    run(python, "-c", "from medrecon.operators.newcomer import here", cwd=tmp_path)
    (checkout / "operators" / "newcomer.py").unlink()
    assert "simulate" in run(tmp_path / "env" / "bin" / "medrecon", "--help", cwd=tmp_path)


def test_import_is_light() -> None:
    """`import medrecon` loads not even torch; importing every module loads none of the heavy libraries."""
    code = "import sys, medrecon; print(*sys.modules)"
    assert not {"torch", "numpy", *HEAVY} & set(run(sys.executable, "-c", code, cwd=ROOT).split())
    code = (
        "import importlib, pkgutil, sys, medrecon\n"
        "for m in pkgutil.walk_packages(medrecon.__path__, 'medrecon.'):\n"
        # Compiled code is imported where it is used.
        "    if not m.name.endswith('_kernels'): importlib.import_module(m.name)\n"
        "print(*sys.modules)"
    )
    loaded = set(run(sys.executable, "-c", code, cwd=ROOT).split())
    assert {"medrecon.operators.base", "medrecon.solvers.base", "medrecon.quality.evaluate"} <= loaded
    assert not set(HEAVY) & loaded


def test_constraints_pin_every_dependency() -> None:
    import re

    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    pinned = {name.lower().replace("_", "-") for name in pins}
    project = SETUP["project"]
    extras = project["optional-dependencies"]
    assert "medrecon[mri]" in extras["test"], "the readers of raw MRI data are tested"
    wanted = [*project["dependencies"], *extras["mri"], *extras["test"]]
    names = {re.split(r"[<>=!~;\[ ]", w, maxsplit=1)[0].lower().replace("_", "-") for w in wanted} - {"medrecon"}
    assert names - pinned == set()
    assert pins["torch"] == "2.13.0"
    assert not any("+" in version for version in pins.values()), "local versions such as +cpu exist on one index only"
    assert "pylibjpeg-libjpeg" not in pinned | names, "GPL"
