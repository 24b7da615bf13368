"""CT and MRI priors within a time budget on one GPU: autoencoders side by side, then all experts side by side.

    python benchmarks/gpu_train.py --minutes 25 --out training/ ct.yaml=store_ct.tar mri.yaml=store_mri/
    python benchmarks/gpu_train.py ... --call-minutes 9 --copy $OUT --resume earlier/   # machines lent for minutes

RECIPE=STORE: a training configuration and the store of `medrecon data index` it is to use (folder, .tar or .tar.gz).
`--minutes` is the whole budget, over all calls; `--call-minutes` ends this call in time: every network saves itself,
and the same command goes on. Small networks leave a large GPU idle between steps, while the CPU cuts crops: so every
network is a process of its own, and they share it.

`--copy` puts what is worth keeping into a folder, in files below 16 MiB, 8 at most and 60 MiB together: the priors and
their cards first, then checkpoints at half precision, as far as there is room. `--resume` unpacks such a folder.

A machine without internet needs torch, numpy, safetensors, pyyaml, pillow, rich and einops, and as wheels
(pip download --no-deps): monai pydantic pydantic-core annotated-types typing-inspection cyclopts docstring-parser
rich-rst docutils.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save

ROOT = Path(__file__).parents[1]
FILE, FILES, TOTAL = 15 << 20, 8, 60 << 20
AUTOENCODER = 0.35
"""share of the budget for the autoencoder; encoding and the experts, all at a time, get the rest"""
SPARE = 40.0
"""seconds kept at the end of a call for saving, putting the priors together and copying"""
CHECKPOINT = "checkpoint.safetensors"


def prepare(pair: str, out: Path, options: argparse.Namespace) -> Path:
    """The recipe with its store, its device and its minutes, written to out/NAME.yaml."""
    recipe, _, store = pair.partition("=")
    folder = unpacked(Path(store), out)
    config = yaml.safe_load(Path(recipe).read_text())
    config |= {"manifest": str((folder / "manifest.toml").absolute())}
    loops = [(config.setdefault("autoencoder_loop", {}), AUTOENCODER)]
    loops += [(expert.setdefault("loop", {}), 0.9 - AUTOENCODER) for expert in config["diffusion"]["experts"].values()]
    for loop, share in loops:
        loop |= {"minutes": share * options.minutes, "device": options.device, "save_seconds": 30.0}
        loop |= {"steps": 10**7, **({"validate_every": options.validate_every} if options.validate_every else {})}
    target = out / Path(recipe).name
    target.write_text(yaml.safe_dump(config, sort_keys=False))  # the order of the experts counts
    return target


def unpacked(store: Path, out: Path) -> Path:
    """The folder of a store, from a tar if it is one."""
    if not store.is_dir():
        target = out / "stores" / store.name.split(".")[0]
        if not target.is_dir():
            with tarfile.open(store) as archive:
                archive.extractall(target, filter="data")
        store = target
    found = sorted(p.parent for p in store.rglob("index.json"))
    if len(found) != 1:
        raise SystemExit(f"{store}: expected one index.json of a training store, found {len(found)}")
    return found[0]


def run(commands: dict[str, list[str]], out: Path, until: float) -> bool:
    """`medrecon train ...` side by side until they end or time is up; False: stopped, but saved."""
    started = {}
    for name, command in commands.items():
        with (out / f"{name}.log").open("a") as log:
            started[name] = subprocess.Popen(
                [sys.executable, "-m", "medrecon", "train", *command], cwd=ROOT, stdout=log, stderr=log
            )
    while any(p.poll() is None for p in started.values()) and time.monotonic() < until:
        time.sleep(0.5)
    late = [p for p in started.values() if p.poll() is None]
    for process in late:
        process.send_signal(signal.SIGTERM)
    for process in late:
        try:
            process.wait(SPARE / 2)
        except subprocess.TimeoutExpired:
            process.kill()
    for name, process in started.items():
        tail = (out / f"{name}.log").read_text().splitlines()[-1:]
        print(f"{name}: {'stopped' if process in late else process.returncode}; {' '.join(tail)}", flush=True)
        if process.returncode and process not in late:
            raise SystemExit(f"{name} failed; see {out / name}.log")
    return not late


def train(recipes: list[Path], until: float) -> None:
    """Autoencoders, experts, priors; what is done already takes no time."""
    out = recipes[0].parent
    place = {r: ["-o", str((out / r.stem).absolute())] for r in recipes}
    done = run({f"{r.stem}-autoencoder": ["autoencoder", str(r.absolute()), *place[r]] for r in recipes}, out, until)
    if not done:  # experts of an earlier call would not fit to it
        return
    experts = [(r, name) for r in recipes for name in yaml.safe_load(r.read_text())["diffusion"]["experts"]]
    run(
        {f"{r.stem}-{name}": ["diffusion", str(r.absolute()), *place[r], "--expert", name] for r, name in experts},
        out,
        until,
    )
    whole = [
        r
        for r in recipes
        if all((out / r.stem / "diffusion" / n / CHECKPOINT).exists() for other, n in experts if other == r)
    ]
    if whole:
        run({f"{r.stem}-prior": ["prior", str(r.absolute()), *place[r]] for r in whole}, out, until + SPARE / 2)


def half(path: Path) -> bytes:
    """A checkpoint at half precision: weights in float16; moments, which may be tiny, in bfloat16."""
    with safe_open(path, framework="pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    for key, tensor in tensors.items():
        if tensor.dtype == torch.float32:
            tensors[key] = tensor.to(torch.bfloat16 if key.startswith("optimizer.") else torch.float16)
    return save(tensors, facts)


def copy(out: Path, target: Path) -> None:
    """Priors, cards, then checkpoints, split into FILE bytes; the names say where they belong."""
    target.mkdir(parents=True, exist_ok=True)
    wanted = [*sorted(out.glob("*/prior.json")), *sorted(out.glob("*/prior.safetensors"))]
    wanted += sorted(out.glob(f"*/autoencoder/{CHECKPOINT}")) + sorted(out.glob(f"*/diffusion/*/{CHECKPOINT}"))
    count = total = 0
    for path in wanted:
        content = half(path) if path.name == CHECKPOINT else path.read_bytes()
        parts = [content[i : i + FILE] for i in range(0, len(content), FILE)]
        name = "--".join(path.relative_to(out).parts)
        if count + len(parts) > FILES or total + len(content) > TOTAL:
            print(f"no room for {name}: {len(content) / 2**20:.1f} MiB", flush=True)
            continue
        for number, part in enumerate(parts):
            (target / f"{name}.{number}").write_bytes(part)
        count, total = count + len(parts), total + len(content)
    print(f"copied {count} files, {total / 2**20:.1f} MiB", flush=True)


def resume(source: Path, out: Path) -> None:
    """What `copy` wrote, back in its place, at full precision; nothing that is there is replaced."""
    parts: dict[str, list[Path]] = {}
    numbered = [p for p in source.iterdir() if p.suffix[1:].isdigit()]
    for path in sorted(numbered, key=lambda p: (p.stem, int(p.suffix[1:]))):
        parts.setdefault(path.stem, []).append(path)
    for name, files in parts.items():
        target = out.joinpath(*name.split("--"))
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(p.read_bytes() for p in files))
        if target.name == CHECKPOINT:
            with safe_open(target, framework="pt") as file:
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
                facts = file.metadata()
            floats = (torch.float16, torch.bfloat16)
            target.write_bytes(save({k: v.float() if v.dtype in floats else v for k, v in tensors.items()}, facts))


def figures(out: Path) -> dict[str, Any]:
    """Last line of every log."""
    logs = sorted(out.glob("*/**/log.jsonl"))
    return {str(p.parent.relative_to(out)): json.loads(p.read_text().splitlines()[-1]) for p in logs}


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="RECIPE=STORE")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--call-minutes", type=float)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--copy", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--validate-every", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.resume and options.resume.is_dir():
        resume(options.resume, options.out)
    recipes = [prepare(pair, options.out, options) for pair in options.pairs]
    seconds = 60 * (options.call_minutes or 10 * options.minutes)
    try:
        train(recipes, began + seconds - SPARE)
    finally:
        print(json.dumps(figures(options.out), indent=1))
        if options.copy:
            copy(options.out, options.copy)


if __name__ == "__main__":
    main()
