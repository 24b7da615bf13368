"""Every format there is keeps every law there is; a new one, and its mistakes, are found by themselves."""

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import format_laws
import pytest

import medrecon.formats
from medrecon.cli import main
from medrecon.formats import find
from medrecon.formats.base import Format

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = [format.name for format in find.found()]


def named(name: str) -> Format:
    return next(format for format in find.found() if format.name == name)


@pytest.fixture(scope="module", params=NAMES)
def format_and_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Format, Path]:
    format = named(request.param)
    return format, format_laws.example(format, tmp_path_factory.mktemp(format.name))


@pytest.mark.parametrize("law", format_laws.LAWS, ids=lambda law: law.__name__)
def test_law(law: format_laws.Law, format_and_file: tuple[Format, Path], tmp_path: Path) -> None:
    law(*format_and_file, tmp_path)


def test_no_format_is_missed() -> None:
    assert {"bart", "ct_pd", "dicom", "dxchange", "fastmri", "htc2022", "ismrmrd", "lodopab"} < set(NAMES)
    assert {"measurement", "nifti", "npy_kspace", "twix", "two_detect"} < set(NAMES)


TOY = (Path(__file__).parents[1] / "project" / "toy_plugin" / "medrecon_toy" / "toy_format.py").read_text()
PLUG = TOY.replace("toy", "plug").replace("TOY1", "PLUG")
"""The same under another name: the toy itself may be installed."""
FAULTS = (
    ("is_described", '(".plug",)', '(".nii",)'),
    ("is_described", 'images = "a plug .plug"', 'images = ""'),
    ("is_recognised_by_it_alone", "path.read_bytes()[:4] == MARK", "False"),
    ("leaves_other_things_alone", " and path.read_bytes()[:4] == MARK", ""),
    ("is_read", "read_bytes()[4:]", "read_bytes()[5:]"),
    ("is_told_by_info", '"kind": "plug"', '"kind": "plug", "patient": "SECRET"'),
    ("is_told_by_info", 'list(volume.data.shape), "units"', 'volume.data, "units"'),
    (
        "damage_is_named",
        "np.frombuffer(body, np.float32).reshape(",
        "np.resize(np.frombuffer(body[: len(body) & ~3], 'f4'), ",
    ),
    ("what_it_is_not_is_named", "except (OSError, ValueError)", "except OSError"),
    ("another_name_does_no_harm", "path.read_bytes()[:4] == MARK", "path.name == 'renamed.xyz'"),
    ("images_come_back", "volume.affine.tolist()", "volume.affine.abs().tolist()"),
    ("images_come_back", 'told["units"], told["modality"]', '"a.u.", "MR"'),
    (
        "writing_is_whole_or_not_at_all",
        "with atomic.file(path, overwrite=overwrite, beside=beside) as made:",
        "if made := path:",
    ),
    ("writing_is_whole_or_not_at_all", "overwrite=overwrite", "overwrite=True"),
)
"""Mistakes that a new format could make: the law that notices, what is right, and the mistake."""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Format]]:
    """Write a module into a folder that belongs to medrecon.formats, and find the format in it."""
    folder = tmp_path / "plugged"
    folder.mkdir()
    monkeypatch.setattr(medrecon.formats, "__path__", [*medrecon.formats.__path__, str(folder)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def plug(source: str) -> Format:
        (folder / "plug.py").write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop("medrecon.formats.plug", None)
        return named("plug")

    yield plug
    sys.modules.pop("medrecon.formats.plug", None)
    vars(medrecon.formats).pop("plug", None)


def test_a_new_file_is_a_new_format_everywhere(
    plugged: Callable[[str], Format], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = plugged(PLUG)
    file = format_laws.example(new, tmp_path / "example")
    for law in format_laws.LAWS:
        folder = tmp_path / law.__name__
        folder.mkdir()
        law(new, file, folder)
    assert main(["info", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "plug"
    assert main(["evaluate", str(file), str(file), "--json"]) == 0


@pytest.mark.parametrize(("law", "right", "wrong"), FAULTS)
def test_a_mistake_in_a_new_format_is_found(
    law: str, right: str, wrong: str, plugged: Callable[[str], Format], tmp_path: Path
) -> None:
    file = format_laws.example(plugged(PLUG), tmp_path / "example")
    assert PLUG.count(right) == 1
    broken = plugged(PLUG.replace(right, wrong))
    (tmp_path / "law").mkdir()
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(format_laws, law)(broken, file, tmp_path / "law")


def test_the_guide_lists_every_raw_format_and_export() -> None:
    """Its tables have a row for each, with the options that the format has a use for."""
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "raw_data.md").read_text()
    readers, kept = guide.split("| `medrecon export --format` |")
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| ([^|]*--[^|]*) \|$", readers.split("## The corpus")[0], re.MULTILINE))
    uses = {f.name: ["--" + name.replace("_", "-") for name in f.uses] for f in find.raw_readers()}
    assert {name: re.findall(r"--[\w-]+", options) for name, options in rows.items()} == uses
    exported = re.findall(r"^\| `(\w+)` \|", kept.split("With bart")[0], re.MULTILINE)
    assert exported == [f.name for f in find.scan_writers()]
