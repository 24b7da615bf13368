"""Plug-ins: a package installed by pip, a broken one beside it, and the same files put into medrecon itself."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from medrecon import formats
from medrecon.cli import main
from medrecon.core.volume import Volume

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "toy_plugin"
Run = Callable[..., subprocess.CompletedProcess[str]]

CONTRACTS = {
    "tests/solvers/test_solver_contract.py": 6,  # three laws, on CT and on MRI
    "tests/operators/test_operator_contract.py": 14,
    "tests/diffusion/test_samplers.py": 1,
    "tests/formats/test_format_contract.py": 12,
}
"""Files of contract tests, and how many of them a toy has to pass at least."""
LISTING = (
    "tests/project/test_architecture.py",
    "tests/cli/test_cli.py",
    "tests/pipeline/test_pipeline.py",
    "tests/pipeline/test_cone_pipeline.py",
)
"""Files with tests that go through all solvers, commands or modules."""
IN_MEDRECON = {
    "toy_solver": "medrecon/solvers/variational",
    "toy_sampler": "medrecon/diffusion/samplers",
    "toy_operator": "operators",
    "toy_format": "medrecon/formats",
    "toy_command": "medrecon/cli/commands",
}


def runner(python: Path | str, *paths: Path) -> Run:
    """Return what runs Python with a checkout and other folders on its path."""

    def run(*arguments: str | Path, cwd: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(p) for p in paths)
        done = subprocess.run(
            [str(python), *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Python of a virtual environment that sees this one's packages, and the toy, installed by `pip install -e`."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(TOY, folder / "toy")  # building writes into the source folder
    for suffix in (".safetensors", ".json"):
        shutil.copy(ROOT / "models" / "weights" / f"mri{suffix}", folder / "toy" / "medrecon_toy" / f"toy{suffix}")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    runner(sys.executable)("-m", "pip", "--python", python, "install", *offline, "-e", folder / "toy", cwd=folder)
    return runner(python, ROOT)


def passed(run: Run, words: str, *files: str, cwd: Path = ROOT) -> Counter[str]:
    """Run tests that must pass; how many of each file did."""
    done = run("-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", words, *files, cwd=cwd)
    return Counter(line.split("::")[0] for line in done.stdout.splitlines() if " PASSED" in line)


def test_an_installed_solver_is_listed_and_reconstructs(
    installed: Run, tmp_path: Path, disc_volume: Callable[..., Volume]
) -> None:
    rows = {row["name"]: row for row in json.loads(installed("-m", "medrecon", "solvers", "--json").stdout)}
    assert rows["toy"]["settings"] == {"iterations": 20} and rows["toy"]["summary"].startswith("Landweber")
    formats.write(disc_volume("CT"), tmp_path / "ct.nii.gz")
    argv = ["simulate", str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "ct.h5"), "--modality", "ct", "--quiet"]
    assert main([*argv, "--views", "24", "--size", "32"]) == 0
    out, options = tmp_path / "toy.nii.gz", ["--solver", "toy", "--settings.iterations", "30", "--json", "--quiet"]
    done = installed("-m", "medrecon", "recon", tmp_path / "ct.h5", "-o", out, *options)
    report = json.loads(done.stdout)
    assert report["settings"] == {"iterations": 30} and report["operator_calls_per_slice"]["forward"] >= 30
    assert float((formats.read(out, modality="CT").data - disc_volume("CT").data[:, ::2, ::2]).abs().mean()) < 200


def test_an_installed_format_and_command(installed: Run, tmp_path: Path, disc_volume: Callable[..., Volume]) -> None:
    formats.write(disc_volume("CT", 16), tmp_path / "ct.nii.gz")
    code = "import sys; from medrecon import formats; formats.write(formats.read(sys.argv[1]), sys.argv[2])"
    installed("-c", code, tmp_path / "ct.nii.gz", tmp_path / "ct.toy")
    told = json.loads(installed("-m", "medrecon", "info", tmp_path / "ct.toy", "--json").stdout)
    assert told["kind"] == "toy" and told["shape"] == [3, 16, 16] and told["units"] == "HU"
    assert json.loads(installed("-m", "medrecon", "toy", "hello", "--json").stdout) == {"toy": "hello"}
    assert "Say a word." in installed("-m", "medrecon", "--help").stdout


def test_an_installed_prior(installed: Run) -> None:
    code = "from medrecon.models.store import load_prior; print(load_prior('toy').modality); load_prior('none')"
    done = installed("-c", code, code=1)
    assert done.stdout == "MR\n" and "installed: ['toy'], or give a path" in done.stderr


def test_the_contract_tests_find_what_is_installed(installed: Run) -> None:
    assert passed(installed, "toy", *CONTRACTS) >= Counter(CONTRACTS)


def test_a_broken_plugin_is_named_and_harms_nothing(tmp_path: Path) -> None:
    """One that cannot be imported, a solver without a name, one that takes a name, a command that is none."""
    info = tmp_path / "bad_luck-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-luck\nVersion: 1.0\n")
    entries = {"solvers": ("absent", "broken", "nameless", "thief"), "commands": ("broken", "mute", "greedy")}
    lines = [f"[medrecon.{group}]\n" + "".join(f"{n} = bad_{n}\n" for n in names) for group, names in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "bad_broken.py").write_text("raise RuntimeError('no luck today')\n")
    (tmp_path / "bad_mute.py").write_text("app = 3\n")
    (tmp_path / "bad_greedy.py").write_text("from cyclopts import App\napp = App(name='recon')\n")
    toy = (TOY / "medrecon_toy" / "toy_solver.py").read_text()
    (tmp_path / "bad_nameless.py").write_text(toy.replace('    name: ClassVar[str] = "toy"\n', ""))
    (tmp_path / "bad_thief.py").write_text(toy.replace('= "toy"', '= "tv"'))
    run = runner(sys.executable, ROOT, tmp_path)
    done = run("-m", "medrecon", "solvers", "--json")
    names = [row["name"] for row in json.loads(done.stdout)]
    assert names.count("tv") == 1 and "toy" not in names
    for complaint in (
        "plug-in medrecon.solvers: absent of bad-luck is left out: ModuleNotFoundError: No module named 'bad_absent'",
        "plug-in medrecon.solvers: broken of bad-luck is left out: RuntimeError: no luck today",
        "plug-in medrecon.commands: broken of bad-luck is left out: RuntimeError: no luck today",
        "plug-in bad_nameless.Toy is left out: it has no name",
        "plug-in bad_thief.Toy is left out: there is a Solver 'tv' already",
        "plug-in bad_mute is left out: a command is a cyclopts App",
        "plug-in bad_greedy is left out: there is a command recon already",
    ):
        assert complaint in done.stderr
    assert "recon" in run("-m", "medrecon", "--help").stdout


def test_one_new_file_of_each_kind_breaks_no_test(tmp_path: Path) -> None:
    """In a copy of the checkout: the toys pass, and so does whatever lists solvers, samplers, operators or files."""
    copy = tmp_path / "medrecon"
    skip = shutil.ignore_patterns(".*_cache", ".venv", ".git", "__pycache__", "build", "dist", "*.egg-info", "shared")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=skip)
    for name, folder in IN_MEDRECON.items():
        shutil.copy(TOY / "medrecon_toy" / f"{name}.py", copy / folder)
    words = "toy or found or finds or describe or described or every_solver or one_way or circles or speak or immediate"
    counts = passed(runner(sys.executable, copy), words, *CONTRACTS, *LISTING, cwd=copy)
    assert counts >= Counter(CONTRACTS) and set(counts) >= {*LISTING}
