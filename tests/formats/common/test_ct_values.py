"""CT images given in other units than they are in, all ways round."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medrecon import formats
from medrecon.formats.common.ct_values import CTUnits

SAID: tuple[CTUnits | None, ...] = (None, "HU", "1/mm", "1/cm")


def body() -> np.ndarray:
    """HU, (x, y, z): soft tissue with lung and bone, in air."""
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    hu = np.where(x**2 + (y / 0.7) ** 2 < 0.8, 40.0, -1000.0)
    hu[(x - 0.4) ** 2 + y**2 < 0.06] = -800
    hu[(x + 0.4) ** 2 + y**2 < 0.02] = 900
    return np.repeat(hu[..., None], 2, axis=2) + np.random.default_rng(0).normal(0, 10, (40, 40, 2)).round()


MU = 0.0192 * (1 + body() / 1000).clip(0)
IMAGES = {
    "HU": body(),
    "1/mm": MU,
    "1/cm": 10 * MU,
    "0..1": (body() - body().min()) / np.ptp(body()),
    "-1..1": 2 * (body() - body().min()) / np.ptp(body()) - 1,
    "8 bits": np.rint(255 * (body() - body().min()) / np.ptp(body())),
    "HU + 1024": (body() + 1024).clip(0),
}
WARNED, REFUSED = "warned", "refused"
EXPECTED = {  # said: nothing, HU, 1/mm, 1/cm
    "HU": ("", "", REFUSED, REFUSED),
    "1/mm": (WARNED, REFUSED, "", WARNED),
    "1/cm": (WARNED, REFUSED, WARNED, ""),
    "0..1": (WARNED, REFUSED, WARNED, WARNED),
    "-1..1": (WARNED, REFUSED, WARNED, WARNED),
    "8 bits": (WARNED, WARNED, REFUSED, WARNED),
    "HU + 1024": (WARNED, WARNED, REFUSED, REFUSED),
}
LOOKS = {
    "HU": "look like HU",
    "1/mm": "look like attenuation in 1/mm",
    "1/cm": "look like attenuation in 1/cm",
    "0..1": "look like values normalised to 0 .. 1",
    "-1..1": "look like values normalised to -1 .. 1",
    "8 bits": "look like grey values of 8 bits",
    "HU + 1024": r"look like HU \+ 1024, or stored numbers without their rescale intercept",
}


@pytest.mark.parametrize("image", IMAGES)
def test_units_the_wrong_way_round(image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(IMAGES[image].astype(np.float32), np.eye(4)), path)
    for said, expected in zip(SAID, EXPECTED[image], strict=True):
        caplog.clear()
        if expected == REFUSED:
            with pytest.raises(ValueError, match=rf"v\.nii: values .* {LOOKS[image]}"):
                formats.read(path, modality="CT", units=said)
            continue
        with caplog.at_level(logging.WARNING):
            got = formats.read(path, modality="CT", units=said)
        assert bool(caplog.text) == (expected == WARNED), (said, caplog.text)
        if expected == WARNED:
            assert LOOKS[image].replace("\\", "") in caplog.text.replace("They", "they") and "v.nii" in caplog.text
        stored = torch.from_numpy(IMAGES[image].astype(np.float32)).permute(2, 1, 0)
        torch.testing.assert_close(got.data, stored * (0.1 if said == "1/cm" else 1.0))
        assert got.units == {None: "HU", "HU": "HU"}.get(said, "1/mm")


def test_units_are_of_ct(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(MU.astype(np.float32), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(ValueError, match=r"v\.nii: units='1/mm' are of CT, and it is read as MR"):
        formats.read(tmp_path / "v.nii", modality="MR", units="1/mm")
