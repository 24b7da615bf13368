"""recon --preview and --solver auto."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medrecon.cli import main
from medrecon.core.stack import Stack
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import save_scan
from medrecon.quality import preview as module
from medrecon.quality.preview import preview, spread
from medrecon.simulate import simulate_ct


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory, disc_volume: Callable[..., Volume]) -> str:
    path = tmp_path_factory.mktemp("recon") / "ct.h5"
    save_scan(simulate_ct(disc_volume("CT", 32), views=24, generator=torch.Generator().manual_seed(0)), path)
    return str(path)


def test_the_choice_is_told_kept_and_run(scan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.nii"
    assert main(["recon", scan, "-o", str(out), "--solver", "auto", "--slices", "0:1", "--json", "--quiet"]) == 0
    text = capsys.readouterr()
    report = json.loads(text.out)
    assert report["solver"] == "huber" and "CT, more views" in report["chosen"]  # 24 of 32
    assert f"solver huber: {report['chosen']}" in text.err
    assert json.loads((tmp_path / "x.report.json").read_text())["chosen"] == report["chosen"]


@pytest.mark.parametrize(
    ("more", "code", "expected"),
    [
        (["--solver", "auto", "--settings.iterations", "5"], 2, "--settings and --mode are those of one solver"),
        (["--solver", "auto", "--prior", "ct"], 2, "--prior ct: --solver auto takes huber, which has no prior"),
        (["--solver", "fbp", "--preview", "p.jpg"], 2, "--preview p.jpg: a picture ends in .png"),
        (["--solver", "fbp", "--preview", "out/p.png"], 2, "lies in the output out"),
        (["--solver", "fbp", "--preview", "there.png"], 1, "there.png exists"),
        (["--solver", "fbp", "--preview", "folder.png"], 1, "folder.png: is a folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(
    more: list[str],
    code: int,
    expected: str,
    scan: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.png").touch()
    Path("folder.png").mkdir()
    monkeypatch.setattr("medrecon.pipeline.reconstruct", None)
    assert main(["recon", scan, "-o", "out/", *more, "--quiet"]) == code
    text = capsys.readouterr()
    assert expected in text.err and text.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "there.png"]


def test_the_preview_appears_beside_the_image(scan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "p.png"
    argv = ["recon", scan, "-o", str(tmp_path / "out"), "--solver", "fbp", "--preview", str(picture), "--quiet"]
    assert main([*argv, "--dry-run"]) == 0 and not picture.exists()
    assert main(argv) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and f"wrote {picture}" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"out", "out.report.json", "p.png"}


def test_the_preview_shows_numbered_slices_in_the_window_of_their_units(
    disc_volume: Callable[..., Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    shown: list[tuple[Any, dict[str, Any]]] = []
    titles: list[str] = []
    imshow, title = Axes.imshow, Axes.set_title
    monkeypatch.setattr(Axes, "imshow", lambda a, x, **k: (shown.append((x, k)), imshow(a, x, **k))[1])
    monkeypatch.setattr(Axes, "set_title", lambda a, t, **k: (titles.append(t), title(a, t, **k))[1])
    monkeypatch.setattr(module, "spread", lambda count: [0, 2])
    volume = disc_volume("CT", 16)
    preview(Stack.of(volume), tmp_path / "x.png", title="t", first=5)
    assert titles == ["slice 5", "slice 7"]
    assert [torch.equal(torch.from_numpy(x), volume.data[k]) for (x, _), k in zip(shown, (0, 2), strict=True)] == [
        True
    ] * 2
    assert all((k["vmin"], k["vmax"], k["aspect"]) == (-160, 240, 1) for _, k in shown)
    shown.clear()
    preview(Stack.of(volume.map(lambda d: 0.02 + d / 5e4, "1/mm")), tmp_path / "y.png", title="t")
    assert all(k["vmin"] == 0 and 0.02 < k["vmax"] < 0.04 for _, k in shown)


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (9, list(range(9))), (133, None)])
def test_slices_of_the_preview_are_spread_evenly(count: int, expected: list[int] | None) -> None:
    found = spread(count)
    assert expected in (None, found)
    assert len(found) == len(set(found)) == min(9, count) and found == [count - 1 - k for k in found[::-1]]
