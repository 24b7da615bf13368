"""Weights and card on disk: one commit; what is damaged, not finite or no prior is refused with its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medrecon.core import checksum
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.store import load_prior, save_prior

EXPERT = ExpertConfig(channels=(16,))


def one(expert: dict[str, Any]) -> dict[str, Any]:
    """The part of a card that describes one expert."""
    return {"diffusion": {"sigma_min": 0.01, "experts": {"all": expert}}}


def card() -> dict[str, Any]:
    return {
        "autoencoder": {"kind": "pixels", "factor": 4},
        "values": {"type": "linear"},
        "units": "a.u.",
        "modality": "MR",
        "error": 0.0,
        "diffusion": {"sigma_min": 0.01, "experts": {"all": EXPERT.model_dump()}},
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A prior of pixels."""
    made = tmp_path / "p.safetensors"
    save_prior(made, PixelSpace(4), WienerUNet({"all": EXPERT}, 0.01, 16, 4), card())
    assert load_prior(str(made)).modality == "MR"
    return made


def tell(path: Path, **changed: Any) -> None:
    note = path.with_suffix(".json")
    said = json.loads(note.read_text()) | {"sha256": checksum.of_file(path)} | changed
    note.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


def test_weights_that_are_not_finite_are_neither_written_nor_read(path: Path) -> None:
    before = sorted(p.name for p in path.parent.iterdir()), path.read_bytes()
    denoiser = WienerUNet({"all": EXPERT}, 0.01, 16, 4)
    with torch.no_grad():
        next(iter(denoiser.parameters())).fill_(1e6)  # infinite in float16
    with pytest.raises(ValueError, match=r"p\.safetensors: denoiser\..*: NaN or infinite weights"):
        save_prior(path, PixelSpace(4), denoiser, card())
    assert before == (sorted(p.name for p in path.parent.iterdir()), path.read_bytes())
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith("denoiser.experts"))
    save_file({**tensors, name: tensors[name] * torch.nan}, path)
    tell(path)
    with pytest.raises(ValueError, match=f"p.safetensors: {name}: NaN or infinite weights"):
        load_prior(str(path))


def test_weights_of_one_writing_and_the_card_of_another_are_refused(path: Path) -> None:
    old = path.read_bytes()
    denoiser = WienerUNet({"all": EXPERT}, 0.02, 16, 4)
    save_prior(path, PixelSpace(4), denoiser, card())
    path.write_bytes(old)
    with pytest.raises(ValueError, match="does not match the sha256 of its card"):
        load_prior(str(path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": None}, "sha256: Field required"),
        ({"sha256": 3}, "sha256: "),
        ({"modality": "PET"}, "modality: Input should be 'CT' or 'MR'"),
        ({"units": 1}, "units: "),
        ({"error": "small"}, "error: "),
        ({"error": float("nan")}, "NaN, which is no JSON"),
        ({"values": [1]}, "values: "),
        ({"values": {"type": "linear", "slope": 3}}, "slope"),
        ({"diffusion": {"sigma_min": 0.01, "experts": {}}}, "diffusion.experts: "),
        ({"diffusion": {"sigma_min": -1, "experts": {"all": {}}}}, "diffusion.sigma_min: "),
        (one({"channels": [1000000]}), "Input should be less"),
        (one({"res_blocks": 1000000}), "res_blocks"),
        (one({"channels": [16] * 99}), "channels"),
        (one({"channels": "16"}), "channels"),
        (one({"channels": [32]}), "in the file, not as the card says"),
        ({"autoencoder": {"kind": "pixels", "factor": 10**6}}, "factor"),
        ({"autoencoder": {"kind": "kl", "channels": [16]}}, "in the file, not as the card says"),
    ],
)  # fmt: skip
def test_a_card_that_is_none_is_refused_with_file_and_key(path: Path, changed: dict[str, Any], message: str) -> None:
    tell(path, **changed)
    with pytest.raises(ValueError, match=message) as error:
        load_prior(str(path))
    assert str(path.parent) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\ufeff{}", '"sha256"'])
def test_what_is_no_card_at_all_is_named(path: Path, text: str) -> None:
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json: "):
        load_prior(str(path))


def test_what_is_no_safetensors_is_named(path: Path) -> None:
    for content in (b"", b"text", b"\xff" * 100, path.read_bytes()[:-7]):
        path.write_bytes(content)
        tell(path, sha256=checksum.of_file(path))
        with pytest.raises(ValueError, match=r"p\.safetensors|channels"):
            load_prior(str(path))
