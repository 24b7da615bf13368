"""evaluate of several images: one table and one picture, and what cannot be compared said before."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medrecon import formats
from medrecon.cli import main
from medrecon.core.volume import Volume
from medrecon.quality import side_by_side as module
from medrecon.quality.evaluate import evaluate
from medrecon.quality.picture import upright

Make = Callable[..., Volume]


@pytest.fixture
def images(tmp_path: Path, disc_volume: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ref.nii, and good.nii, bad.nii that are 1 and 50 HU off; part.nii of two slices."""
    monkeypatch.chdir(tmp_path)
    volume = disc_volume("CT", 32)
    for name, error in (("ref", 0), ("good", 1), ("bad", 50)):
        formats.write(volume.map(lambda d, e=error: d + e), tmp_path / f"{name}.nii")
    formats.write(volume.slices(1, 3), tmp_path / "part.nii")
    return tmp_path


def test_several_images_make_one_table_the_best_first(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "bad.nii", "good.nii", "ref.nii"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("all, ")]
    assert [row.split("HU")[1].split()[0] for row in rows] == 4 * ["good.nii", "bad.nii"]
    assert rows[0].split()[-2:] == ["1", "1"] and rows[1].split()[-2:] == ["50", "50"]
    assert main(["evaluate", "bad.nii", "good.nii", "ref.nii", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "good.nii", "ref.nii", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert told["reference"] == "ref.nii" and [one["image"] for one in told["images"]] == ["bad.nii", "good.nii"]
    assert told["images"][1] == {"image": "good.nii", **alone}


def test_an_image_that_covers_less_is_named(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "part.nii", "good.nii", "ref.nii", "--picture", "x.png"]) == 0
    text = capsys.readouterr()
    assert "compared on 67 % of the reference's voxels: part.nii covers no more" in text.err
    assert "66.7 %" in text.out and "100.0 %" in text.out
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "code", "expected"),
    [
        (["good.nii"], 2, "REFERENCE is missing, good.nii is the only image"),
        ([], 2, "REFERENCE is missing"),
        (["good.nii", "ref.nii", "--picture", "x.jpg"], 2, "--picture x.jpg: a picture ends in .png"),
        (["good.nii", "ref.nii", "--picture", "old.png"], 1, "old.png exists; give another name or --overwrite"),
        (["good.nii", "./good.nii", "ref.nii"], 2, "is named twice"),
        (["good.nii", "coarse.nii", "ref.nii", "--grid", "recon", "--picture", "x.png"], 2, "have different grids"),
        (["mr.nii", "ref.nii"], 1, "evaluate: the reconstruction has modality 'MR'"),
        (["good.nii", "mr.nii", "ref.nii"], 1, "mr.nii: evaluate: the reconstruction has modality 'MR'"),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_written(
    images: Path, argv: list[str], code: int, expected: str, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old.png").write_bytes(b"old")
    formats.write(disc_volume("CT", 16), "coarse.nii")
    formats.write(disc_volume("MR", 32), "mr.nii")
    before = sorted(images.iterdir())
    assert main(["evaluate", *argv]) == code
    text = capsys.readouterr()
    assert expected in text.err and text.out == "" and text.err.count("\n") == 1
    assert sorted(images.iterdir()) == before and Path("old.png").read_bytes() == b"old"


def test_the_picture_shows_the_middle_slice_on_the_grid_of_the_comparison(
    disc_volume: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn, not how: truth and image of that slice, NaN where an image does not reach, its own figures."""
    drawn: dict[str, Tensor] = {}

    def draw(reference: Tensor, images: dict[str, Tensor], path: Path, **told: object) -> None:
        drawn.update(images, truth=reference)
        assert told["title"] == "slice 2 of the reference, figures of the window full"
        assert told["captions"] == {"part": "no error, SSIM 1.000"} and told["pixel"] == (2.0, 2.0)

    monkeypatch.setattr(module, "comparison", draw)
    volume = disc_volume("CT", 32)
    half = volume.slices(1, 3)
    half = Volume(half.data[:, :20], half.affine, "HU", "CT")
    result = {"part": evaluate(half, volume)}
    module.side_by_side({"part": half}, volume, result, tmp_path / "x.png")
    assert torch.equal(drawn["truth"], volume.data[2])  # its affine falls along both axes: it is upright as it is
    assert torch.equal(drawn["part"][:20], half.data[1]) and bool(drawn["part"][20:].isnan().all())


@pytest.mark.parametrize(("signs", "flipped"), [((-1, -1), ()), ((1, -1), (1,)), ((-1, 1), (0,)), ((1, 1), (0, 1))])
def test_slices_are_shown_with_the_patients_right_at_the_left(signs: tuple[int, int], flipped: tuple[int, ...]) -> None:
    image = torch.arange(12.0).reshape(3, 4)
    affine = torch.diag(torch.tensor([signs[0], signs[1], 3, 1]).double())
    assert torch.equal(upright(image, affine), image.flip(flipped))
