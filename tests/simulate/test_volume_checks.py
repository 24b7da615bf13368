"""What is asked of a volume before it is simulated; oblique and left-handed ones are as good as any."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medrecon.cli import main
from medrecon.core.volume import Volume
from medrecon.simulate import simulate_ct, simulate_mri, simulate_noncartesian

Make = Callable[..., Volume]
TURN = torch.from_numpy(np.linalg.qr(np.array([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def placed(volume: Volume, linear: torch.Tensor) -> Volume:
    affine = volume.affine.clone()
    affine[:3, :3] = linear @ torch.diag(torch.tensor(volume.spacing, dtype=torch.float64))
    return replace(volume, affine=affine)


def lean(shear: float, tilt: float) -> torch.Tensor:
    return TURN @ torch.tensor([[1, shear, tilt], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("geometry", ["fan", "parallel", "cone", "helix"])
def test_place_does_not_change_what_is_measured(disc_volume: Make, geometry: str) -> None:
    """Any turn, and its mirror image: the same line integrals, and the volume's own affine."""
    plain = disc_volume("CT", size=16)
    kept = [simulate_ct(plain, geometry=geometry, views=5, generator=seeded())]  # type: ignore[arg-type]
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    for linear in (TURN, TURN @ mirror, mirror):
        volume = placed(plain, linear)
        kept.append(simulate_ct(volume, geometry=geometry, views=5, generator=seeded()))  # type: ignore[arg-type]
        torch.testing.assert_close(kept[-1].data, kept[0].data, rtol=1e-5, atol=1e-5)
        assert torch.equal(kept[-1].affine, volume.affine)


def test_sheared_grids(disc_volume: Make) -> None:
    ct, mr = disc_volume("CT", size=16), disc_volume("MR", size=16)
    for volume, run in ((ct, simulate_ct), (mr, simulate_mri), (mr, simulate_noncartesian)):
        with pytest.raises(ValueError, match=r"the grid is sheared.*resample"):
            run(placed(volume, lean(0.2, 0.0)), generator=seeded())
    tilted = placed(ct, lean(0.0, 0.4))
    simulate_ct(tilted, views=3, generator=seeded())
    for geometry in ("cone", "helix"):
        with pytest.raises(ValueError, match=r"tilted gantry.*resample the volume, or take slices"):
            simulate_ct(tilted, geometry=geometry, views=3, generator=seeded())  # type: ignore[arg-type]


def test_values(disc_volume: Make) -> None:
    ct, mr = disc_volume("CT", size=16), disc_volume("MR", size=16)
    with pytest.raises(ValueError, match=r"simulate_mri: .*complex"):
        simulate_mri(mr.map(lambda x: x + 1j), generator=seeded())
    for values in (lambda hu: 0.0192 * (1 + hu / 1000), lambda hu: 0.192 * (1 + hu / 1000), lambda hu: hu / 1000):
        with pytest.raises(ValueError, match=r"are not HU.*--units 1/mm or 1/cm"):
            simulate_ct(ct.map(values), generator=seeded())
    for factor in (1e-30, 1e30):
        with pytest.raises(ValueError, match=r"simulate_mri: values up to .*; scale them"):
            simulate_mri(mr.map(lambda x, f=factor: f * x / x.max()), generator=seeded())  # type: ignore[misc]


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_the_command_refuses_before_it_computes(
    modality: str, tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    values = disc_volume(modality[:2].upper(), size=16).data.permute(2, 1, 0).numpy()
    sheared = np.array([[1.0, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for name, image in (("sheared", nib.Nifti1Image(values, sheared)), ("z", nib.Nifti1Image(values + 1j, np.eye(4)))):
        nib.save(image, tmp_path / f"{name}.nii")
        argv = ["simulate", str(tmp_path / f"{name}.nii"), "-o", str(tmp_path / "x.h5"), "--modality", modality]
        assert main([*argv, "--dry-run"]) == 1
        said = capsys.readouterr().err
        assert f"{name}.nii: " in said and ("sheared" in said if name == "sheared" else "complex" in said)
