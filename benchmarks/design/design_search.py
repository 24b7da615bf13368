"""Autoencoder designs trained for equal CPU time from one seed: round trip on validation subjects, decoder's cost.

Steps = seconds / (CPU seconds of a step, measured), each with a learning rate annealed to its end. Resumes: designs
already in the file are skipped, one that was cut short goes on from its checkpoint.

    nice -n 12 env OMP_NUM_THREADS=1 python benchmarks/design/design_search.py --out runs/designs.json --seconds 200
    python benchmarks/design/design_search.py --out runs/designs.json --seconds 0    # only the table
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.store import value_map
from medrecon.training.autoencoder import AutoencoderConfig, AutoencoderTask
from medrecon.training.config import TrainConfig
from medrecon.training.images.augment import crops
from medrecon.training.images.slices import Slices
from medrecon.training.loop.steps import fit
from medrecon.training.run import load_data


@dataclass(frozen=True)
class Design:
    """What is varied; the first is the shipped one. Every one has f = 4."""

    channels: tuple[int, ...] = (64, 128)
    patch: int = 2
    latent_channels: int = 8
    res_blocks: int = 1
    decoder_res_blocks: int = 1
    kl: float = 1e-6
    gradient: float = 0.0
    ssim: float = 0.0


DESIGNS = {
    "shipped": Design(),
    "4 latent channels": Design(latent_channels=4),
    "10 latent channels": Design(latent_channels=10),
    "16 latent channels": Design(latent_channels=16),
    "decoder of 2 blocks": Design(decoder_res_blocks=2),
    "half width": Design(channels=(32, 64)),
    "patch 4": Design(channels=(128,), patch=4),
    "1.5 width": Design(channels=(96, 192)),
    "KL 1e-2": Design(kl=1e-2),
    "2 blocks": Design(res_blocks=2, decoder_res_blocks=2),
    "patch 1": Design(channels=(32, 64, 128), patch=1),
    "KL 1e-4": Design(kl=1e-4),
    "edges 1": Design(gradient=1.0),
    "SSIM 1": Design(ssim=1.0),
}


def build(design: Design, seed: int, u: Tensor) -> KLAutoencoder:
    """The untrained autoencoder at the principal components of images u (B, H, W)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        d = design
        net = KLAutoencoder(d.channels, d.latent_channels, d.res_blocks, d.patch, d.decoder_res_blocks)
    net.fit(u)
    return net


def step_seconds(net: KLAutoencoder, task: AutoencoderTask, config: TrainConfig, folder: Path) -> float:
    """CPU seconds of a training step: the least of four runs of three, on a copy."""
    spent = []
    for _ in range(4):
        trial, start = copy.deepcopy(net), time.process_time()
        loop = config.autoencoder_loop.model_copy(update={"steps": 3, "validate_every": 3, "save_seconds": 1e9})
        fit(trial, task.loss, lambda _: {}, loop, folder, lambda *_: None)
        spent.append((time.process_time() - start) / 3)
        shutil.rmtree(folder)
    return min(spent)


@torch.no_grad()
def decoder_cost(net: KLAutoencoder) -> dict[str, float]:
    """CPU milliseconds (least of five, batch of 8) and multiplications, in 1e9, of decoding a 256 x 256 slice."""
    net.eval()
    z = torch.zeros(8, net.latent_channels, 256 // net.factor, 256 // net.factor)
    with FlopCounterMode(display=False) as counter:
        net.decode(z)
    spent = []
    for _ in range(5):
        start = time.process_time()
        net.decode(z)
        spent.append(time.process_time() - start)
    return {"decode_ms": min(spent) / 8 * 1e3, "decode_gmac": counter.get_total_flops() / 2 / 8 / 1e9}


def run(
    design: Design, config: TrainConfig, train: Slices, held_out: Slices, seconds: float, folder: Path
) -> dict[str, Any]:
    """Train one design; its figures."""
    loop, values = config.autoencoder_loop, value_map(config.values)
    assert isinstance(config.autoencoder, AutoencoderConfig)
    settings = config.autoencoder.model_copy(update=asdict(design))
    seed = torch.Generator().manual_seed(loop.seed)
    net = build(design, loop.seed, values.forward(crops(train, settings.crop, 512, settings.augment, seed)))
    training, exact = (
        AutoencoderTask(settings, values, config.windows, train, held_out, "cpu", bf16) for bf16 in (True, False)
    )
    start = exact.validate(net)
    plan = folder / "steps.json"
    if not plan.exists():
        a_step = step_seconds(net, training, config, folder / "trial")
        plan.write_text(json.dumps({"steps": max(1, round(seconds / a_step)), "step_ms": 1e3 * a_step}))
    planned = json.loads(plan.read_text())
    loop = loop.model_copy(update={"steps": planned["steps"], "validate_every": planned["steps"]})
    loop = loop.model_copy(update={"warmup": min(loop.warmup, loop.steps // 10)})
    average = fit(net, training.loss, lambda _: {}, loop, folder / "fit", lambda *_: None)
    assert isinstance(average, KLAutoencoder)
    return {
        **planned,
        "start": start,
        **exact.validate(average),
        **decoder_cost(average),
        "parameters": sum(p.numel() for p in average.parameters()),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    head = ("design", "steps", "PSNR full", "soft", "at the start, full", "soft", "decoder ms", "10⁹ mult.", "10⁶ par.")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, r in rows.items():
        cells = [
            name,
            str(r["steps"]),
            f"{r['psnr_full']:.2f}",
            f"{r['psnr_soft']:.2f}",
            f"{r['start']['psnr_full']:.2f}",
            f"{r['start']['psnr_soft']:.2f}",
            f"{r['decode_ms']:.0f}",
            f"{r['decode_gmac']:.2f}",
            f"{r['parameters'] / 1e6:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="figures (JSON); checkpoints lie beside it")
    parser.add_argument("--recipe", type=Path, default=Path("models/weights/ct.yaml"))
    parser.add_argument("--seconds", type=float, default=200.0, help="CPU seconds of training a design")
    parser.add_argument("--designs", nargs="*", default=list(DESIGNS), choices=list(DESIGNS))
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    left = [name for name in options.designs if name not in rows] if options.seconds else []
    if left:
        torch.set_num_threads(1)
        config = TrainConfig.model_validate(yaml.safe_load(options.recipe.read_text()))
        train, held_out = load_data(config)
    for name in left:
        folder = options.out.parent / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        rows[name] = run(DESIGNS[name], config, train, held_out, options.seconds, folder)
        options.out.write_text(json.dumps(rows, indent=1))
        print(name, json.dumps(rows[name]), flush=True)
        shutil.rmtree(folder)
    print(table(rows))


if __name__ == "__main__":
    main()
