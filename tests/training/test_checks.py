"""Mistakes in a training configuration and its data end the command at once and say what to change."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medrecon.cli.main import main
from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.training.images.latents import fingerprint, stored
from medrecon.training.images.slices import Slices
from medrecon.training.loop.gpu import noise_like, resident

RECIPE = """
modality: CT
size: 32
values: {type: asinh}
windows: {full: {low: -1024, high: 3071}}
autoencoder: {channels: [16, 16], latent_channels: 2, crop: 16, batch: 1}
autoencoder_loop: {steps: 1}
diffusion:
  experts:
    fine: {up_to: 1, channels: [16, 16]}
    coarse: {up_to: 80, channels: [16, 16]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> dict:
    """A configuration that trains, on sheets of two subjects."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(np.arange(64 * 32, dtype=np.uint16).reshape(64, 32)).save(tmp_path / split / "s.png")
        (tmp_path / split / "index.tsv").write_text(
            f"sheet\tframe\tsource\tsubject\tdetail\ns.png\t0\tx\t{split}\tx\ns.png\t1\tx\t{split}\tx\n"
        )
    (tmp_path / "m.toml").write_text(
        'name = "s"\nmodality = "CT"\nunits = "HU"\ncontent = "c"\nlicence = "none"\nlicence_checked = "no"\n'
        'kind = "sheets"\ntrain = "train"\nval = "val"\nintercept = -1024.0\n'
    )
    return yaml.safe_load(RECIPE) | {"manifest": str(tmp_path / "m.toml")}


def train(recipe: dict, folder: Path, *more: str) -> int:
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return main(["train", "autoencoder", str(folder / "r.yaml"), "-o", str(folder / "run"), *more])


MISTAKES = {
    "size: 28": ("size", 28, "size: Input should be a multiple of 8"),
    "size": ("size", 8, "autoencoder.crop: 16 is more than the size of the slices, 8"),
    "levels": ("autoencoder", {"channels": [16] * 5, "crop": 16}, "crop: 16 is not a multiple of 32"),
    "SSIM": ("autoencoder", {"channels": [16, 16], "crop": 4, "ssim": 1}, "4 is less than the 7 pixels of SSIM"),
    "groups": ("autoencoder", {"channels": [16, 20], "crop": 16}, "[16, 20] must be multiples of 16"),
    "latent": ("autoencoder", {"channels": [16, 16], "latent_channels": 17, "crop": 16}, "17 are more than the 16"),
    "map": ("values", {"type": "log"}, "values: unknown value map 'log'"),
    "map key": ("values", {"type": "asinh", "nee": 1}, "values: "),
    "no window": ("windows", {}, "windows: name at least one"),
    "window": ("windows", {"soft": {"low": 5, "high": 5}}, "windows.soft: low 5 is not below high 5"),
    "order": ("diffusion", {"experts": {"a": {"up_to": 80}, "b": {"up_to": 1}}}, "up_to must rise"),
    "device": ("autoencoder_loop", {"device": "gpu"}, "'gpu' is none of cpu, cuda"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_key(recipe, tmp_path, capsys, mistake) -> None:
    key, value, complaint = MISTAKES[mistake]
    assert train(recipe | {key: value}, tmp_path) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'r.yaml'}: " in error and complaint in error
    assert not (tmp_path / "run").exists()


def test_the_same_recipe_without_a_mistake_trains_and_tells(recipe, tmp_path, capsys) -> None:
    assert train(recipe, tmp_path) == 0
    told = capsys.readouterr().err
    assert "training on 2 slices of 1 subjects" in told and "warning: 1 training subject:" in told
    assert train(recipe, tmp_path, "--json") == 0
    out = capsys.readouterr()
    assert "is done, 1 steps" in out.err and "psnr_full" in json.loads(out.out)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"modality": "MR", "values": {"type": "linear"}}, "the configuration says MR"),
        ({"manifest": "none.toml"}, "none.toml: no such manifest"),
        ({"start_from": "none.safetensors"}, "none.safetensors: no such prior"),
    ],
)
def test_data_that_do_not_fit(recipe, tmp_path, capsys, change, complaint) -> None:
    assert train(recipe | change, tmp_path) == 1
    assert complaint in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_told_without_a_traceback(recipe, tmp_path, capsys) -> None:
    """Slices of one constant value have no variance to scale the latents by."""
    for split in ("train", "val"):
        Image.fromarray(np.full((64, 32), 1000, np.uint16)).save(tmp_path / split / "s.png")
    assert train(recipe, tmp_path) == 1
    assert "training loss is nan" in capsys.readouterr().err


def test_latents_of_another_autoencoder_are_refused(tmp_path) -> None:
    """Training the autoencoder further must not leave a prior whose halves do not fit."""
    slices = Slices(torch.zeros(2, 8, 8, dtype=torch.int16), ("a", "b"))
    net = KLAutoencoder((16, 16), 2, 1, 2)
    make = lambda: {"train": torch.ones(1)}  # noqa: E731
    path = tmp_path / "latents.safetensors"
    stored(path, make, fingerprint(net, slices, "views 1"))
    net.latent_mean.fill_(3.0)  # the normalisation is set later, and is no part of what was encoded
    assert torch.equal(stored(path, make, fingerprint(net, slices, "views 1"))["train"], torch.ones(1))
    with torch.no_grad():
        net.analysis.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"another state of the autoencoder.*remove it"):
        stored(path, make, fingerprint(net, slices, "views 1"))


def test_noise_is_the_generators() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    first, again = (torch.Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(noise_like(x, first), torch.randn(2, 3, generator=again))
    assert resident(x, torch.device("cpu")) is x


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_noise_on_a_gpu_follows_the_cpu_generator() -> None:
    x = torch.zeros(2, 3, device="cuda")
    first, again = (noise_like(x, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again) and first.device == x.device
