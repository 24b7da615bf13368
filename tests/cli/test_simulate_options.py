"""simulate --dose and --size, undersample --dose: what they make, and of what the share is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medrecon import formats
from medrecon.cli import main
from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.simulate import simulate_ct, simulate_mri


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, disc_volume: Callable[..., Volume]) -> Path:
    """An image of each modality, a measurement of each, and one of CT whose photons are not known."""
    folder = tmp_path_factory.mktemp("simulate")
    for kind, name in (("CT", "ct"), ("MR", "mr")):
        formats.write(disc_volume(kind, 32, 1), folder / f"{name}.nii")
    g = torch.Generator().manual_seed(0)
    ct = simulate_ct(disc_volume("CT", 32, 1), views=12, generator=g)
    save_scan(ct, folder / "ct.h5")
    save_scan(replace(ct, noise=None), folder / "bare.h5")
    save_scan(simulate_mri(disc_volume("MR", 32, 1), accel=1, acs=12, coils=2, generator=g), folder / "mr.h5")
    return folder


@pytest.fixture(autouse=True)
def place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def made(line: str) -> Scan:
    argv = line.split()
    assert main([*argv, "--quiet"]) == 0
    return load_scan(Path(argv[argv.index("-o") + 1]))


def noise(scan: Scan) -> CTNoise:
    assert isinstance(scan.noise, CTNoise)
    return scan.noise


def test_the_dose_of_an_image_is_a_share_of_i0_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    base = "simulate ct.nii --modality ct --views 12 --i0 8000"
    whole, part = made(f"{base} -o a.h5"), made(f"{base} -o b.h5 --dose 25%")
    told = capsys.readouterr().err
    assert "25 % of --i0 8000 are 2000 photons; the image does not tell its own dose" in told
    assert (noise(whole).i0, noise(part).i0) == (8000, 2000)
    assert (part.provenance["dose_fraction"], part.provenance["dose_of_i0"]) == (0.25, 8000)
    same = made("simulate ct.nii --modality ct --views 12 --i0 2000 -o c.h5")
    assert bool((same.data == part.data).all()) and "dose_fraction" not in whole.provenance


def test_the_dose_of_a_scan_is_a_share_of_its_own_photons() -> None:
    made("simulate ct.nii --modality ct --views 12 --i0 8000 --dose 50% -o a.h5")
    scan = made("undersample a.h5 -o b.h5 --dose 0.25 --seed 3")
    assert noise(scan).i0 == 1000 and scan.provenance["dose_fraction"] == 0.125 and scan.provenance["dose_seed"] == 3
    assert float((scan.data - load_scan(Path("a.h5")).data).std()) > 0.01


def test_mri_at_another_size_lies_in_the_same_field_of_view(capsys: pytest.CaptureFixture[str]) -> None:
    base = "simulate mr.nii --modality mri --accel 1 --acs 12 --coils 3"
    for more in ("", " --trajectory golden --readouts 12"):
        made(
            (base if not more else "simulate mr.nii --modality mri --coils 3")
            + more
            + " -o m.h5 --size 16 --slices 0:1"
        )
        scan = load_scan(Path("m.h5"))
        assert scan.image_shape == (16, 16) and scan.provenance["size"] == 16
        assert scan.affine[:2, :2].diagonal().tolist() == [-4, -4]
        Path("m.h5").unlink()
    made(f"{base} -o m.h5 --size 16")
    assert main(["recon", "m.h5", "-o", "x.nii", "--solver", "cg-sense", "--quiet"]) == 0
    decibels = {}
    for grid in ("recon", "reference"):
        capsys.readouterr()
        assert main(["evaluate", "x.nii", "mr.nii", "--grid", grid, "--json"]) == 0
        decibels[grid] = json.loads(capsys.readouterr().out)["psnr_db"]
    assert decibels["recon"] > decibels["reference"] + 1 and decibels["recon"] > 22


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("simulate ct.nii -o x.h5 --modality ct --dose 25", 2, "--dose: expected a share such as 25% or 0.25"),
        ("simulate ct.nii -o x.h5 --modality ct --dose 0%", 2, "--dose: expected a share such as 25% or 0.25"),
        ("simulate ct.nii -o x.h5 --modality ct --dose 120%", 2, "from 0.01% to 100%, got '120%'"),
        ("simulate mr.nii -o x.h5 --modality mri --dose 25%", 2, "--dose: only for --modality ct"),
        ("simulate mr.nii -o x.h5 --modality mri --size 33", 1, "mr.nii: size: must be between 8 and the 32 rows"),
        ("simulate ct.nii -o x.h5 --modality ct --size 33", 1, "size must be between 8 and the 32 rows"),
        ("undersample ct.h5 -o x.h5", 1, "of CT give --dose, such as --dose 25%"),
        ("undersample ct.h5 -o x.h5 --dose 25% --accel 2 --acs 8", 2, "--accel, --acs: of MRI, and --dose of CT"),
        ("undersample mr.h5 -o x.h5 --dose 25%", 1, "mr.h5, --dose 0.25: reduce_dose: needs a CT scan, got mri"),
        ("undersample bare.h5 -o x.h5 --dose 25%", 1, "bare.h5, --dose 0.25: noise/i0: not known"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    line: str, code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    text = capsys.readouterr().err
    assert expected in text and text.count("\n") == 1 and not Path("x.h5").exists()
