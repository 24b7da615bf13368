"""Classes of images: told, kept secret, unknown; from the origin of a slice to a prior that takes their names."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sheets import MANIFEST, write_split

from medrecon import formats
from medrecon.core.volume import Volume
from medrecon.data.build import build_store
from medrecon.data.manifest import load_manifest
from medrecon.models.denoiser import Conditional
from medrecon.models.exact.gaussian import smooth_gaussian
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet, positions
from medrecon.models.store import load_prior
from medrecon.training.config import TrainConfig
from medrecon.training.diffusion import DiffusionConfig, DiffusionTask, ExpertTraining
from medrecon.training.images.slices import Slices, read_sheets
from medrecon.training.images.sources import load_slices
from medrecon.training.loop.config import LoopConfig
from medrecon.training.run import assemble, start_expert, train_diffusion

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 120
RULES = {"dark": "^a/", "bright": "contrast|^b/"}


def two_classes(count, seed):
    """Latents of unit variance, bright on the left or on the right, and which."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(1, 3, (count,), generator=g)
    side = torch.linspace(-1, 1, 8).sign().expand(1, 8, 8)
    z = side * (2 * label - 3).view(-1, 1, 1, 1) + 0.3 * torch.randn(count, 1, 8, 8, generator=g)
    return z, label


@pytest.fixture(scope="module")
def trained():
    """An expert trained on the two classes, a fifth of the labels kept secret."""
    torch.manual_seed(0)
    expert = ExpertTraining(channels=(32,), crop=8, batch=16, loop=LoopConfig(bf16=False))
    net = DiffusionConfig(experts={"all": expert}, sigma_min=2.0, labels=RULES).denoiser(1, 8)
    (z, label), (held, known) = two_classes(256, 1), two_classes(64, 2)
    net.wiener.fit(z)
    task = DiffusionTask(net, "all", expert, z, held, torch.zeros(1, 1, 1), torch.ones(1, 1, 1), (label, known))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        task.loss(net.experts["all"], generator).backward()
        optimizer.step()
    return net.eval(), task


def test_a_class_that_is_told_helps_where_noise_hides_it(trained):
    net, task = trained
    told, secret = (task.errors(net.experts["all"], (16.0, 32.0), told=t) for t in (True, False))
    task.labels = task.labels[0], 3 - task.labels[1]
    wrong = task.errors(net.experts["all"], (16.0, 32.0), told=True)
    task.labels = task.labels[0], 3 - task.labels[1]
    for sigma in (16.0, 32.0):
        gaussian = secret[sigma][1]
        assert told[sigma][0] < 0.3 * secret[sigma][0]
        assert secret[sigma][0] < 1.1 * gaussian  # nobody who does not know the class can be much better
        assert wrong[sigma][0] > 1.5 * gaussian
    scores = task.validate(net.experts["all"])
    assert scores["told_16"] < 0.3 * scores["ratio_16"]


def test_a_view_of_one_class_shares_the_weights_and_leaves_the_whole_alone(trained, generator):
    net, _ = trained
    z, sigma = 16 * torch.randn(2, 1, 8, 8, generator=generator), torch.tensor([16.0, 30.0])
    parts = z, sigma, *net.wiener(z, sigma), positions((8, 8), z)
    with torch.no_grad():
        before = net(z, sigma)
        dark, bright = net.conditioned("dark"), net.conditioned("dark").conditioned("bright")
        assert torch.equal(net(z, sigma), before)
        assert torch.equal(before, net.correct(net.experts["all"], *parts, 0))  # unknown
        each = net.correct(net.experts["all"], *parts, torch.tensor([1, 2]))
        assert torch.allclose(dark(z, sigma)[0], each[0], atol=1e-5)
        assert torch.allclose(bright(z, sigma)[1], each[1], atol=1e-5)
    assert not torch.allclose(each, before, atol=0.1)
    assert isinstance(net, Conditional) and isinstance(dark, Conditional)
    assert all(a is b for a, b in zip(net.parameters(), bright.parameters(), strict=True))


def test_a_class_reaches_every_expert_of_a_mixed_batch(generator):
    torch.manual_seed(0)
    net = WienerUNet(
        {"fine": ExpertConfig(up_to=1.0, channels=(32,)), "coarse": ExpertConfig(channels=(32,))},
        0.01,
        1,
        8,
        ("a", "b"),
    )
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    z, sigma = torch.randn(2, 1, 8, 8, generator=generator), torch.tensor([0.5, 5.0])
    with torch.no_grad():
        plain, told = net(z, sigma), net.conditioned("b")(z, sigma)
        for i in range(2):
            assert not torch.allclose(plain[i], told[i], atol=1e-3)
            assert torch.allclose(net.conditioned("b")(z[i : i + 1], sigma[i])[0], told[i], atol=1e-4)


def test_without_classes_nothing_changes():
    net = WienerUNet({"all": ExpertConfig(channels=(16,))}, 0.01, 1, 8)
    assert not any("class_embedding" in name for name in net.state_dict())
    with pytest.raises(ValueError, match="no class 'chest': it was trained without classes"):
        net.conditioned("chest")


def test_all_or_no_labels_are_kept_secret(trained, generator):
    _, task = trained
    index = torch.arange(256)
    seen = task.told(index, generator)
    assert set(seen.tolist()) == {0, 1, 2}
    assert 0.1 < float((seen == 0).float().mean()) < 0.3
    assert torch.equal(seen[seen > 0], task.labels[0][seen > 0])
    for share in (0.0, 1.0):
        task_of = SimpleNamespace(config=SimpleNamespace(untold=share), labels=task.labels, mean=task.mean)
        assert torch.equal(DiffusionTask.told(task_of, index, generator), task.labels[0] * int(share == 0))


def test_the_first_rule_that_is_found_gives_the_class():
    origins = ("a/x/contrast", "b/x", "c/contrast", "c")
    slices = Slices(torch.zeros(4, 2, 2), ("a/x", "b/x", "c/x", "c/x"), origins=origins)
    assert slices.labels(RULES).tolist() == [1, 2, 2, 0]
    assert replace(slices, origins=()).labels(RULES).tolist() == [1, 2, 0, 0]  # by their subjects


def test_contrasts_of_one_subject_by_their_files_with_and_without_a_store(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / f"p{split}").mkdir(parents=True)
        for name in ("T1", "T2"):
            volume = Volume(torch.rand(2, 16, 16), torch.eye(4, dtype=torch.float64), "a.u.", "MR")
            formats.write(volume, tmp_path / split / f"p{split}" / f"{name}.nii.gz")
    text = MANIFEST.replace('"CT"', '"MR"').replace('"HU"', '"a.u."').replace('"sheets"', '"nifti"')
    (tmp_path / "m.toml").write_text(text)
    manifest = load_manifest(tmp_path / "m.toml")
    direct = load_slices(manifest, "train", 16)
    build_store(manifest, tmp_path / "store", size=16)
    stored = load_slices(load_manifest(tmp_path / "store" / "manifest.toml"), "train", 16)
    assert direct.origins == stored.origins == ("train/ptrain/T1.nii.gz",) * 2 + ("train/ptrain/T2.nii.gz",) * 2
    assert direct.labels({"t2": "T2", "t1": "T1"}).tolist() == [2, 2, 1, 1]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Sheets of three sources, one of no class, and a tiny pixel-space recipe with classes."""
    root = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 3)):
        sheet = rng.integers(0, 500, (count, 16, 16)) + 200 * rng.permutation(count)[:, None, None]
        write_split(root / split, sheet, [f"{'abc'[i % 3]}\t{split}{i}\tx{i}" for i in range(count)])
    (root / "m.toml").write_text(MANIFEST)
    loop = {"steps": 2, "warmup": 1, "validate_every": 2, "bf16": False}
    expert = {"channels": [32], "crop": 4, "batch": 2, "views": 2, "loop": loop}
    return {
        "manifest": root / "m.toml",
        "modality": "CT",
        "size": 16,
        "values": {"type": "asinh"},
        "windows": {"full": {"low": -1024, "high": 3071}},
        "autoencoder": {"kind": "pixels", "factor": 4},
        "autoencoder_loop": loop,
        "diffusion": {"experts": {"all": expert}, "labels": RULES},
    }


def test_from_a_recipe_with_classes_to_a_prior_that_knows_them(recipe, tmp_path):
    config = TrainConfig.model_validate(recipe)
    scores = train_diffusion(config, tmp_path, lambda *_: None)
    assert {"ratio_0.5", "told_0.5"} <= set(scores["all"])
    card = assemble(config, tmp_path)
    assert set(card["validation"]["denoising_mse"]) == {"all", "all, class told"}
    prior = load_prior(str(tmp_path / "prior.safetensors"))
    told = prior.conditioned("bright")
    assert (prior.label, told.label, told.mirrored().label) == (None, "bright", "bright")
    assert told.denoiser.labels == ("dark", "bright") and told.denoiser.label == 2
    with pytest.raises(ValueError, match="prior: the denoiser has no class 'chest': it knows dark, bright"):
        prior.conditioned("chest")
    with pytest.raises(ValueError, match="it knows none"):
        replace(prior, denoiser=smooth_gaussian((1, 4, 4))).conditioned("chest")


def test_latents_know_whose_they_are(recipe, tmp_path):
    """Classes can be named anew without encoding anew: what is kept is the number of the slice."""
    from safetensors.torch import load_file, save_file

    config = TrainConfig.model_validate(recipe)
    train_diffusion(config, tmp_path, lambda *_: None)
    path = tmp_path / "diffusion" / "all" / "latents.safetensors"
    kept = load_file(path)
    whole = read_sheets(config.manifest.parent / "train", 1.0, -1024.0)
    means = whole.values(slice(None)).mean((1, 2))
    both = torch.stack([kept["train"].float().mean((1, 2, 3)), means[kept["slices"]]])
    assert torch.corrcoef(both)[0, 1] > 0.9
    save_file({"train": kept["train"]}, path)
    with pytest.raises(ValueError, match=r"does not say which slices.*remove it"):
        train_diffusion(config, tmp_path, lambda *_: None)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [({"odd": "a("}, "odd: 'a\\(' is not a regular"), ({"leg": "knee"}, "labels.leg: no training.*'a/train0/x0'")],
)
def test_classes_that_cannot_be(recipe, tmp_path, labels, complaint):
    changed = recipe | {"diffusion": recipe["diffusion"] | {"labels": labels}}
    with pytest.raises(ValueError, match=complaint):
        train_diffusion(TrainConfig.model_validate(changed), tmp_path, lambda *_: None)


def test_a_prior_without_classes_is_gone_on_from(recipe, tmp_path, generator):
    plain = recipe | {"diffusion": {"experts": recipe["diffusion"]["experts"]}}
    old = TrainConfig.model_validate(plain)
    train_diffusion(old, tmp_path, lambda *_: None)
    assemble(old, tmp_path)
    before = load_prior(str(tmp_path / "prior.safetensors")).denoiser
    new = DiffusionConfig.model_validate(recipe["diffusion"]).denoiser(16, 4)
    start_expert(new.experts["all"], tmp_path / "prior.safetensors", "all")
    new.wiener.load_state_dict(before.wiener.state_dict())
    z, sigma = torch.randn(1, 16, 4, 4, generator=generator), torch.tensor(0.5)
    with torch.no_grad():
        assert torch.equal(new.eval().conditioned("dark")(z, sigma), before(z, sigma))
