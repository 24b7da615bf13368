"""What the README shows works: its Python runs, its commands and options exist, its links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = (README, (ROOT / "docs" / "guide" / "command_line.md").read_text())
COMMANDS = [
    shlex.split(line.partition(" #")[0])
    for page in PAGES
    for block in page.split("```")[1::2]  # what lies between fences
    for line in block.splitlines()
    if line.startswith(("medrecon ", "make "))
]


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: re.findall(r"import (\w+)\n", b)[-1])
def test_python_runs(block: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if "tv.nii.gz" in block:
        decibels = dict(re.findall(r"(\w+): ([\d.]+) dB", done.stdout))
        assert float(decibels["tv"]) > float(decibels["fbp"]) > 30
        assert (tmp_path / "tv.nii.gz").exists()


def test_operator_of_the_architecture_page_obeys_the_laws() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    exec(compile(block, "docs/architecture.md", "exec"), {"__name__": "page"})


def test_manifest_of_the_architecture_page_is_valid(tmp_path: Path) -> None:
    from medrecon.data.manifest import load_manifest

    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(block)
    assert load_manifest(tmp_path / "mine.toml").kind == "dicom"


def test_quick_start_is_short() -> None:
    assert len([line for line in PYTHON[0].splitlines() if line]) <= 15


def test_starts_with_the_two_commands() -> None:
    assert [c for c in COMMANDS if c[0] == "make"] == [["make", "demo"], ["make", "test"]]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "check"} <= set(targets)


@pytest.mark.parametrize("command", [c[1:] for c in COMMANDS if c[0] == "medrecon"], ids=" ".join)
def test_commands_and_options_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from medrecon.cli import main

    name = " ".join(command[:2] if command[0] == "data" else command[:1])  # data has commands of its own
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: medrecon" in shown
    for option in (word for word in command if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), f"{option} is not in {name} --help"


def test_every_command_is_shown() -> None:
    from medrecon.cli.main import app

    known = {name for name in app if not name.startswith("-")}
    assert known == {c[1] for c in COMMANDS if c[0] == "medrecon"}


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"),
        *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", (ROOT / page).read_text())
    for link, place in links:
        if not link.startswith(("http:", "https:", "mailto:")):
            target = (ROOT / page).parent / link if link else ROOT / page
            assert target.exists(), link
            assert not place or place in headings(target), f"{link}#{place}"


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_benchmark_is_explained() -> None:
    folder = ROOT / "benchmarks"
    explained = set(re.findall(r"`(\w+\.py)`", (folder / "README.md").read_text()))
    assert explained == {path.name for path in folder.rglob("*.py")}
    assert max(len(list(f.glob("*.py"))) for f in (folder, *folder.iterdir()) if f.is_dir()) <= 12


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/raw_data_results.md", "docs/guide/mri.md"])
def test_chi2_near_one_is_never_offered_as_a_proof(page: str) -> None:
    assert re.search(r"(chi\^2/m|χ²/m)[^.|]*(near 1|≈ 1)[^.|]*no proof of (the )?anatomy", prose(page))


def test_gains_stand_beside_what_test_data_did_to_them() -> None:
    for page in ("README.md", "docs/results.md"):
        assert re.search(r"optimistic by up to 0\.5 dB", prose(page)), page
    before, _, _ = prose("docs/results.md").partition("## How it was measured")
    assert "commit 53366ea" in before  # which code gave the figures


def prose(page: str) -> str:
    """A page with its line ends and emphasis taken out."""
    return re.sub(r"\s+", " ", (ROOT / page).read_text().replace("**", ""))


@pytest.mark.parametrize("page", [str(p.relative_to(ROOT)) for p in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))])
def test_files_that_a_page_names_exist(page: str) -> None:
    named = re.findall(
        r"(?<![\w/.])((?:tests|benchmarks|medrecon|operators|models|docs)/[\w/]+\.\w+)", (ROOT / page).read_text()
    )
    assert sorted({name for name in named if not (ROOT / name).exists()}) == []


def rows(page: str, head: str) -> dict[str, str]:
    """First cell (in backticks) -> row of the table whose head begins so."""
    text = (ROOT / page).read_text()
    table = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    return {line.split("`")[1]: line for line in table}


def test_the_table_of_solvers_is_the_one_that_auto_goes_by() -> None:
    from medrecon.pipeline.auto import TABLE

    shown = README.partition("| scan | solver |")[2].partition("\n\n")[0].splitlines()[2:]
    expected = [
        f"| {row.case} | `{row.solver}`{f' with `{row.prior}`' if row.prior else ''} | {row.figures} |"
        for row in TABLE.values()
    ]
    assert shown == expected


def test_the_tables_of_raw_data_are_whole() -> None:
    from medrecon.formats.find import raw_readers, scan_writers

    table = rows("docs/guide/raw_data.md", "| format | what it is |")
    assert list(table) == [f.name for f in raw_readers()]
    for format in raw_readers():
        options = set(re.findall(r"--([\w-]+)", table[format.name]))
        assert options == {name.replace("_", "-") for name in format.uses}, format.name
    assert list(rows("docs/guide/raw_data.md", "| `medrecon export --format` |")) == [f.name for f in scan_writers()]


def test_environment_variables_are_documented() -> None:
    from medrecon.data.manifest import load_manifest

    named = {load_manifest(path).root_variable for path in ROOT.glob("data_manifests/*.toml")} - {""}
    named |= set(re.findall(r'environ\.get\("(MEDRECON_\w+)"', (ROOT / "tests" / "conftest.py").read_text()))
    pages = "".join(path.read_text() for path in ROOT.glob("docs/guide/*.md"))
    assert named and [name for name in named if name not in pages] == []


def test_tests_that_the_page_of_right_values_names_exist() -> None:
    """`test_x.py::name`, and names alone, which are in the file before them."""
    page = (ROOT / "docs" / "experiments" / "2026-11-30-right-values.md").read_text()
    rows = [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| ")]
    file, names, missing = "", 0, []
    for told in (each for row in rows for each in re.findall(r"`([\w/.:]+)`", row) if each != "on_step"):
        path, _, name = told.rpartition("::") if not told.endswith(".py") else (told, "", "")
        if path:
            (found,) = (ROOT / "tests").rglob(path.removeprefix("tests/"))
            file = found.read_text()
        names += bool(name)
        missing += [told] if name and f"def test_{name}(" not in file else []
    assert missing == [] and names > 60
