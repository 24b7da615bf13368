"""The law of stacks: a volume given slice by slice is written as the whole of it would be, and never held whole."""

import gzip
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from torch import Tensor

from medrecon import formats
from medrecon.core.stack import Stack
from medrecon.core.volume import Volume
from medrecon.formats.dicom import stored

OBLIQUE = torch.tensor(
    [[0.0, 0.9, 0.0, 12.0], [-0.7, 0.0, 0.0, -30.0], [0.0, 0.0, 2.5, 4.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def volume(modality: str, dtype: torch.dtype = torch.float32) -> Volume:
    """(7, 6, 5), no value like another."""
    values = torch.rand(7, 6, 5, generator=torch.Generator().manual_seed(3)).to(dtype)
    if modality == "CT":
        return Volume(values * 3000 - 1500, OBLIQUE, "HU", "CT")
    return Volume(values * 40, OBLIQUE, "a.u.", "MR")


class Watched:
    """Reads slices of a volume and counts how many of them are alive at once."""

    def __init__(self, whole: Volume) -> None:
        self.whole, self.alive, self.most = whole, 0, 0

    def __call__(self, z: int) -> Tensor:
        values = self.whole.data[z].clone()
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(values, self._gone)
        return values

    def _gone(self) -> None:
        self.alive -= 1

    def stack(self) -> Stack:
        """The volume, watched."""
        whole = self.whole
        depth, height, width = whole.data.shape
        return Stack((depth, height, width), self, whole.affine, whole.units, whole.modality)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nifti_is_what_nibabel_writes_of_the_whole(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    whole = volume("MR", dtype)
    ours = formats.write(Watched(whole).stack(), tmp_path / name)
    header = nib.load(ours).header
    image = nib.Nifti1Image(whole.data.float().permute(2, 1, 0).numpy(), whole.affine.numpy(), header)
    image.header.set_slope_inter(1, 0)
    (tmp_path / "nibabel").mkdir()
    nib.save(image, tmp_path / "nibabel" / name)
    got, expected = ours.read_bytes(), (tmp_path / "nibabel" / name).read_bytes()
    if name.endswith(".gz"):
        got, expected = gzip.decompress(got), gzip.decompress(expected)
    assert got == expected


@pytest.mark.parametrize("sample", [210, 50, 19, 4])
def test_the_window_of_mr_is_found_from_every_nth_voxel_of_the_whole(
    sample: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = volume("MR")
    monkeypatch.setattr(stored, "SAMPLE", sample)
    folder = formats.write(Watched(whole).stack(), tmp_path / "x")
    p1, p99 = np.quantile(whole.data.double().flatten()[:: whole.data.numel() // sample].numpy(), [0.01, 0.99])
    dataset = pydicom.dcmread(folder / "medrecon_0001.dcm")
    assert float(dataset.WindowCenter) == pytest.approx((p1 + p99) / 2, rel=1e-9)
    assert float(dataset.WindowWidth) == pytest.approx(p99 - p1, rel=1e-9)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dicom_pixels_have_one_scale_for_all_slices(modality: str, tmp_path: Path) -> None:
    """The range is that of all slices, not of the one at hand."""
    whole = volume(modality)
    folder = formats.write(Watched(whole).stack(), tmp_path / "x")
    datasets = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    pixels = np.stack([dataset.pixel_array for dataset in datasets])
    low = min(float(whole.data.min()), 0.0) if modality == "MR" else -1024.0
    slope = (float(whole.data.max()) - low) / 65535 if modality == "MR" else 1.0
    assert [float(dataset.RescaleSlope) for dataset in datasets] == pytest.approx([slope] * 7, rel=1e-9)
    expected = ((whole.data.double().numpy() - low) / slope).round().clip(0, 65535)
    np.testing.assert_allclose(pixels, expected, atol=1 if modality == "MR" else 0)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_few_slices_are_held(name: str, modality: str, tmp_path: Path) -> None:
    """The one just read, the one before it, and the last of the checks before: of seven, not all."""
    watched = Watched(volume(modality))
    formats.write(watched.stack(), tmp_path / name)
    assert watched.most <= 3


@pytest.mark.parametrize("name", ["x.nii", "x"])
def test_a_bad_slice_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    whole = volume("CT")
    whole.data[4, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="first in slice 4; nothing written"):
        formats.write(Watched(whole).stack(), tmp_path / name)
    assert not list(tmp_path.iterdir())
