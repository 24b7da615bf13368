"""A prior seen in other units and in a mirror: what it says of an image does not change; cards that are wrong."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medrecon.core import checksum
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.prior import Prior
from medrecon.models.store import load_prior, save_prior
from medrecon.models.values import Asinh, Linear, ValueMap


def make(values: ValueMap, shape: tuple[int, int] = (4, 6)) -> Prior:
    return Prior(IdentityAutoencoder(), smooth_gaussian((1, *shape)), values, "HU", "CT", error=20.0)


@pytest.mark.parametrize("values", [Asinh(), Linear(-1024.0, 3071.0)], ids=["asinh", "linear"])
@pytest.mark.parametrize("slopes", [(1.0,), (50_000.0,), (-3.0,), (50_000.0, 0.25)], ids=str)
def test_spread_is_the_derivative_of_the_image_by_the_network_value(
    values: ValueMap, slopes: tuple[float, ...]
) -> None:
    """|d decode / du| by autograd, whatever the units and however often they were changed."""
    prior = make(values)
    for slope in slopes:
        prior = prior.with_units(slope, -1000.0 / slope)
    hu = torch.linspace(-900, 1500, 24, dtype=torch.float64).reshape(1, 4, 6)
    x = (hu - prior.intercept) / prior.slope
    u = prior.network_values(x).requires_grad_()
    (slope,) = torch.autograd.grad(prior.decode(u[:, None], (4, 6)).sum(), u)
    torch.testing.assert_close(prior.spread(x), slope.abs())
    torch.testing.assert_close(prior.decode(prior.encode(x), (4, 6)), x)


def test_units_compose_and_the_error_follows() -> None:
    """HU = 2 (10 v + 3) - 1000 = 20 v - 994; an error of 20 HU is one of 1 there."""
    prior = make(Asinh()).with_units(2.0, -1000.0).with_units(10.0, 3.0)
    assert (prior.slope, prior.intercept, prior.error) == (20.0, -994.0, 1.0)
    assert make(Asinh()).with_units(-2.0).error == 10.0


def test_phase_is_taken_off_and_put_back() -> None:
    prior = replace(make(Linear(0.0, 2.0)), modality="MR")
    magnitude = torch.linspace(0, 2, 24, dtype=torch.float64).reshape(1, 4, 6)
    phase = torch.polar(torch.ones_like(magnitude), torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(1, 4, 6))
    x = prior.with_phase(phase)
    torch.testing.assert_close(x.network_values(magnitude * phase), magnitude - 1)
    torch.testing.assert_close(x.decode(x.encode(magnitude * phase), (4, 6)), magnitude * phase)


def test_a_mirror_is_seen_by_the_network_alone() -> None:
    prior = make(Linear(-1.0, 1.0))
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(1, 4, 6)
    mirrored = prior.mirrored()
    torch.testing.assert_close(mirrored.encode(x), prior.encode(x).flip(-1))
    torch.testing.assert_close(mirrored.decode(mirrored.encode(x), (4, 6)), x)
    assert torch.equal(mirrored.mirrored().encode(x), prior.encode(x))


def change(card: dict[str, Any], path: str, value: Any) -> None:
    *parents, key = path.split("/")
    for parent in parents:
        card = card[parent]
    if value is None:
        del card[key]
    else:
        card[key] = value


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest prior: pixels folded 2 x 2, one expert."""
    experts = {"all": {"channels": [16], "res_blocks": 1}}
    path = tmp_path_factory.mktemp("prior") / "small.safetensors"
    denoiser = WienerUNet({"all": ExpertConfig(**experts["all"])}, 0.01, 4, 8, ())
    card = {"units": "HU", "modality": "CT", "error": 1.0, "values": {"type": "linear"}}
    card |= {"autoencoder": {"kind": "pixels", "factor": 2}, "diffusion": {"sigma_min": 0.01, "experts": experts}}
    save_prior(path, PixelSpace(2), denoiser, card)
    load_prior(str(path))
    return path


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sha256", None, "sha256: Field required"),
        ("sha256", 3, "sha256: "),
        ("autoencoder", None, "autoencoder: "),
        ("autoencoder", [1], "autoencoder: "),
        ("autoencoder/factor", "two", "factor"),
        ("autoencoder/factor", 10**6, "factor"),
        ("autoencoder/factor", 64, "in the file, not as the card says"),
        ("autoencoder/kind", [], "unknown kind"),
        ("diffusion/experts", {}, "experts"),
        ("diffusion/experts/all/channels", [10**6], "channels"),
        ("diffusion/experts/all/channels", [4096], "in the file, not as the card says"),
        ("diffusion/experts/all/channels", "many", "channels"),
        ("diffusion/experts/all/res_blocks", 10**6, "res_blocks"),
        ("diffusion/sigma_min", "small", "sigma_min"),
        ("values/type", "log", "unknown value map"),
        ("values/low", "zero", "low is 'zero'"),
        ("values/high", -5, "no range of values"),
        ("values/knee", 3, "knee"),
        ("units", "kg", "units"),
        ("modality", 1, "modality"),
        ("error", "1", None),
        ("error", [], "error"),
    ],
)
def test_a_wrong_card_names_file_and_key(
    path: str, value: Any, message: str | None, small: Path, tmp_path: Path
) -> None:
    copied = shutil.copy(small, tmp_path / "p.safetensors")
    card = json.loads(small.with_suffix(".json").read_text())
    change(card, path, value)
    (tmp_path / "p.json").write_text(json.dumps(card))
    if message is None:
        assert load_prior(str(copied)).error == 1.0
        return
    with pytest.raises(ValueError, match=message) as error:
        load_prior(str(copied))
    assert str(tmp_path / "p.") in str(error.value)


def test_weights_that_are_no_numbers_are_refused(small: Path, tmp_path: Path) -> None:
    tensors = load_file(small)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].flatten()[0] = float("nan")
    save_file(tensors, tmp_path / "p.safetensors")
    card = json.loads(small.with_suffix(".json").read_text())
    card["sha256"] = checksum.of_file(tmp_path / "p.safetensors")
    (tmp_path / "p.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"p\.safetensors: {re.escape(name)}: NaN"):
        load_prior(str(tmp_path / "p.safetensors"))
    (tmp_path / "p.safetensors").write_bytes(b"no weights at all")
    card["sha256"] = checksum.of_file(tmp_path / "p.safetensors")
    (tmp_path / "p.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"p\.safetensors: damaged, or not safetensors"):
        load_prior(str(tmp_path / "p.safetensors"))
