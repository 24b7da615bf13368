"""Counts, transmissions and wrong signs are no line integrals; what real scanners measure is."""

import logging
from pathlib import Path

import pytest
import torch
from ct_phantoms import Ellipse

from medrecon.acquisition.line_integrals import check_line_integrals
from medrecon.geometry import FanGeometry, ParallelGeometry

VIEWS = tuple(0.1 * i for i in range(60))
FAN = FanGeometry(VIEWS, 96, 2.0, 500.0, 400.0)
SOURCE = Path("scan.x")


def disc(mu: float, radius: float = 30.0, x: float = 5.0) -> torch.Tensor:
    """(1, V, D), air on both sides."""
    return Ellipse(x, -4.0, radius, 0.8 * radius, 0.3, mu).sinogram(FAN).float()[None]


RIGHT = {
    "water": disc(0.02),
    "bone": disc(0.06),
    "contrast too low to see": disc(1e-4),
    "air, with noise": 0.02 * torch.randn(1, 60, 96, generator=torch.Generator().manual_seed(0)),
    "an object beyond the detector": disc(0.01, 90.0, 0.0),
    "cone": disc(0.02)[:, :, None].repeat(1, 1, 3, 1),
    "photon starvation of 16 bits": disc(0.3).clamp_max(11.1),
    "half a fan": disc(0.02, 60.0)[..., 48:],
}
WRONG = {
    "counts": (4e4 * torch.exp(-disc(0.02)), "are they counts"),
    "counts of a cone": (4e4 * torch.exp(-disc(0.02))[:, :, None], "are they counts"),
    "counts of 8 bits": (255 * torch.exp(-disc(0.02)), "are they counts"),
    "transmission": (torch.exp(-disc(0.02)), "transmissions, not line integrals"),
    "transmission of little": (torch.exp(-disc(0.004)), "transmissions, not line integrals"),
    "transmission in per cent": (100 * torch.exp(-disc(0.02)), "are they counts"),
    "the other sign": (-disc(0.02), "the mean line integral is -"),
}
WARNED = {
    "metal": (disc(0.35), "where no photon is counted"),
    "flat field of another scan": (disc(1e-4) - 0.1, "does the flat field belong to the scan"),
    "logarithm of the counts": (10.6 - disc(0.05), "both ends of the detector attenuate more"),
}


@pytest.mark.parametrize("data", RIGHT.values(), ids=RIGHT)
def test_right(data: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_line_integrals(data, SOURCE)
    assert not caplog.text


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_wrong(data: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"slice 1: .*{message}"):
        check_line_integrals(torch.cat([torch.zeros_like(data), data]), SOURCE)


@pytest.mark.parametrize(("data", "message"), WARNED.values(), ids=WARNED)
def test_said(data: torch.Tensor, message: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_line_integrals(data, SOURCE)
    assert f"scan.x: slice 0: {message}" in caplog.text or message in caplog.text


def test_few_views_or_elements_have_no_profile() -> None:
    rays = ParallelGeometry((0.0, 1.0), 96, 1.0)
    check_line_integrals(Ellipse(0, 0, 9, 9, 0.0, 0.01).sinogram(rays).float()[None], SOURCE)
    check_line_integrals(torch.ones(1, 20, 5), SOURCE)
