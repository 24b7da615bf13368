"""Training of a tiny prior from PNG sheets to a shipped file."""

import json

import numpy as np
import pytest
import torch
from sheets import MANIFEST, write_split

from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.store import load_prior
from medrecon.training.autoencoder import Window, window_error
from medrecon.training.config import TrainConfig
from medrecon.training.images.augment import Augment, crops
from medrecon.training.images.slices import Slices, read_sheets
from medrecon.training.loop.config import LoopConfig
from medrecon.training.run import assemble, train_autoencoder, train_diffusion


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two sheets of smooth 32 x 32 blobs in HU + 1024, and their manifest."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        coarse = torch.from_numpy(rng.uniform(0, 1500, (count, 1, 5, 5)))
        sheet = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")[:, 0].clamp(0, 4000)
        write_split(root / split, sheet.numpy(), [f"blobs\t{split}{i // 2}\tx" for i in range(count)])
    (root / "m.toml").write_text(MANIFEST)
    return root


def config(data, **loop) -> TrainConfig:
    settings = LoopConfig(**{"steps": 4, "warmup": 1, "validate_every": 2, "bf16": False, **loop})
    return TrainConfig.model_validate(
        {
            "manifest": data / "m.toml",
            "modality": "CT",
            "size": 32,
            "values": {"type": "asinh"},
            "windows": {"full": {"low": -1024, "high": 3071}},
            "autoencoder": {"channels": [16, 16], "latent_channels": 2, "crop": 16, "batch": 2},
            "autoencoder_loop": settings,
            "diffusion": {
                "experts": {
                    "fine": {"up_to": 1.0, "channels": [16, 16], "crop": 4, "batch": 2, "views": 1, "loop": settings},
                    "coarse": {
                        "fold": 2,
                        "channels": [16, 16],
                        "attention": 1,
                        "crop": 8,
                        "batch": 2,
                        "views": 1,
                        "parametrisation": "v",
                        "loop": settings,
                    },
                }
            },
        }
    )


def silent(*_):
    pass


def test_sheets_to_a_prior_that_loads(data, tmp_path):
    settings = config(data)
    scores = train_autoencoder(settings, tmp_path, silent)
    train_diffusion(settings, tmp_path, silent)
    card = assemble(settings, tmp_path)
    assert np.isfinite(scores["psnr_full"])
    assert card["units"] == "HU"
    prior = load_prior(str(tmp_path / "prior.safetensors"))
    x = torch.zeros(2, 30, 27)  # not a multiple of 4: padded and cropped
    z = prior.encode(x)
    assert z.shape == (2, 2, 8, 7)
    assert prior.decode(z, (30, 27)).shape == x.shape
    assert prior.denoiser(z, torch.tensor(0.5)).shape == z.shape
    assert prior.error > 0
    log = [json.loads(line) for line in (tmp_path / "autoencoder" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [2, 4]
    path = tmp_path / "prior.safetensors"
    again = settings.model_copy(update={"start_from": path})
    assert train_autoencoder(again, tmp_path / "again", silent)["psnr_full"] > scores["psnr_full"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="sha256"):
        load_prior(str(path))
    with pytest.raises(FileNotFoundError, match="shipped"):
        load_prior("nothing")


def test_pixels_need_no_autoencoder(data, tmp_path):
    """The twin trains at once, its round trip loses nothing, and there is no autoencoder to train."""
    small = config(data, steps=1).model_dump()
    settings = TrainConfig.model_validate(small | {"autoencoder": {"kind": "pixels", "factor": 4}})
    with pytest.raises(ValueError, match="none to train"):
        train_autoencoder(settings, tmp_path, silent)
    train_diffusion(settings, tmp_path, silent)
    card = assemble(settings, tmp_path)
    assert card["error"] < 1e-3 and "autoencoder" not in card["history"]
    prior = load_prior(str(tmp_path / "prior.safetensors"))
    x = read_sheets(data / "val", 1.0, -1024.0).values(slice(None))
    z = prior.encode(x)
    assert z.shape == (4, 16, 8, 8)
    assert torch.allclose(prior.decode(z, (32, 32)), x.clamp(-1024, 3071), atol=0.01)
    assert prior.denoiser(z, torch.tensor(2.0)).shape == z.shape
    odd = TrainConfig.model_validate(settings.model_dump() | {"autoencoder": {"kind": "pixels", "factor": 3}})
    with pytest.raises(ValueError, match="size: 32 is not a multiple of 3"):
        train_diffusion(odd, tmp_path, silent)


def test_diffusion_before_autoencoder_is_refused(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="train autoencoder"):
        train_diffusion(config(data), tmp_path, silent)


def test_a_subject_in_both_splits_is_refused(data, tmp_path):
    text = (data / "val" / "index.tsv").read_text()
    try:
        (data / "val" / "index.tsv").write_text(text.replace("val0", "train0"))
        with pytest.raises(ValueError, match="both train and val"):
            train_autoencoder(config(data), tmp_path, silent)
    finally:
        (data / "val" / "index.tsv").write_text(text)


def test_window_error_counts_only_the_window():
    window = Window(low=0.0, high=10.0)
    a, b = torch.tensor([[[-5.0, 20.0, 3.0]]]), torch.tensor([[[-9.0, 30.0, 4.0]]])
    assert float(window_error(a, b, window)) == pytest.approx(0.01 / 3)


def test_crops_are_reproducible_and_balance_subjects(data):
    slices = read_sheets(data / "train", 1.0, -1024.0)
    draw = lambda: crops(slices, 16, 5, Augment(), torch.Generator().manual_seed(1))  # noqa: E731
    assert torch.equal(draw(), draw())
    uneven = Slices(torch.zeros(5, 4, 4, dtype=torch.int16), ("a", "a", "a", "a", "b"))
    weights = uneven.weights
    assert float(weights[:4].sum() / weights[4]) == pytest.approx(2.0)


def test_autoencoder_starts_as_the_principal_components(generator):
    """Images of as many patterns as there are latent channels come back exactly; the channels share one variance."""
    net = KLAutoencoder((16, 16), 3, 1, 2)
    patterns = torch.randn(3, 4, 4, generator=generator)
    images = torch.einsum("nkab,kij->naibj", torch.randn(6, 3, 8, 8, generator=generator), patterns).reshape(6, 32, 32)
    net.fit(images)
    with torch.no_grad():
        mean, std = net.posterior(images)
        assert torch.allclose(net.reconstruct(mean), images, atol=1e-4)
    assert float(std.max()) < 0.01
    assert float(mean.square().mean()) == pytest.approx(1.0, rel=0.05)
