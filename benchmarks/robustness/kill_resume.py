"""`medrecon train autoencoder` on real CT, killed (SIGKILL) at random moments and resumed, against a run left alone.

    MEDRECON_CORPUS=... python benchmarks/robustness/kill_resume.py --kills 8

A small network on 64 x 64 crops; the folders stay in --output. Prints, per kill, the step it went back to and the
seconds of training lost with it, then how far the loss curves and the final weights of the two runs differ.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from medrecon.training.loop.checkpoint import NAME, training_facts
from medrecon.training.loop.log import read_log

ROOT = Path(__file__).parents[2]


def write_config(path: Path, steps: int, save_seconds: float) -> None:
    settings = {
        "manifest": str(ROOT / "data_manifests" / "corpus_ct.toml"),
        "modality": "CT",
        "size": 128,
        "values": {"type": "asinh"},
        "windows": {"full": {"low": -1024, "high": 3071, "target_db": 44}, "soft": {"low": -160, "high": 240}},
        "autoencoder": {"channels": [16, 16], "crop": 64, "batch": 2},
        "autoencoder_loop": {
            "steps": steps,
            "warmup": 20,
            "validate_every": 100,
            "log_every": 10,
            "save_seconds": save_seconds,
        },
    }
    path.write_text(yaml.safe_dump(settings))


def start(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The command in one thread: the order of sums, and so their last bit, is always the same."""
    command = [sys.executable, "-m", "medrecon", "train", "autoencoder", str(config), "-o", str(folder), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def finish(config: Path, folder: Path) -> None:
    process = start(config, folder)
    if process.wait():
        sys.exit(f"medrecon train failed with {process.returncode}")


def steps_done(folder: Path) -> int:
    return int(training_facts(folder)["steps"]) if (folder / NAME).exists() else 0


def kill_once(config: Path, folder: Path, delay: float, startup: bool) -> dict[str, Any] | None:
    """Kill the run `delay` seconds after its start, or after its first checkpoint; None if it was done by then."""
    run, process, began = folder / "autoencoder", start(config, folder), time.time()
    while not startup and process.poll() is None and _saved(run) < began:
        time.sleep(0.02)
    try:
        process.wait(delay)
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    now = time.time()
    process.wait()
    log = (run / "log.jsonl").read_text() if (run / "log.jsonl").exists() else ""
    return {
        "step": steps_done(run),
        "lost": f"{now - _saved(run):.2f} s" if _saved(run) > began else "the start alone",
        "beyond": sum(row["step"] > steps_done(run) for row in read_log(run / "log.jsonl")),
        "torn": bool(log) and not log.endswith("\n"),
        "partial": (run / (NAME + ".partial")).exists(),
    }


def _saved(run: Path) -> float:
    """When the last checkpoint was written."""
    return (run / NAME).stat().st_mtime if (run / NAME).exists() else 0.0


def compare(whole: Path, killed: Path) -> None:
    curves = [read_log(folder / "log.jsonl") for folder in (whole, killed)]
    steps = [[row["step"] for row in rows] for rows in curves]
    print(
        f"log lines {len(steps[0])} and {len(steps[1])}, same steps: {steps[0] == steps[1]}, "
        f"duplicates: {len(steps[1]) - len(set(steps[1]))}"
    )
    pairs = list(zip(*curves, strict=True))
    for key in [k for k in curves[0][-1] if k not in ("step", "seconds")]:
        values = [(a[key], b[key]) for a, b in pairs if key in a]
        print(
            f"{key}: from {values[0][0]:.5g} to {values[-1][0]:.5g}, "
            f"largest difference {max(abs(a - b) for a, b in values):.3g}"
        )
    tensors = [load_file(folder / NAME) for folder in (whole, killed)]
    for part in ("module", "average", "optimizer", "generator"):
        names = [k for k in tensors[0] if k.startswith(part)]
        apart = max(float((tensors[0][k].float() - tensors[1][k].float()).abs().max()) for k in names)
        print(f"{part}: {len(names)} tensors, largest difference {apart:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--save-seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/kill_resume"))
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    config = options.output / "config.yaml"
    write_config(config, options.steps, options.save_seconds)
    draw, began = random.Random(options.seed), time.time()
    finish(config, options.output / "whole")
    length = read_log(options.output / "whole" / "autoencoder" / "log.jsonl")[-1]["seconds"]
    startup = max(0.0, time.time() - began - length)
    print(
        f"{options.steps} steps in {length:.0f} s after {startup:.0f} s of starting, "
        f"a checkpoint every {options.save_seconds:g} s",
        flush=True,
    )
    for number in range(options.kills):
        early = draw.random() < 0.25  # while it loads its data, or has just begun
        delay = draw.uniform(0, startup if early else 2 * length / options.kills)
        found = kill_once(config, options.output / "killed", delay, early)
        if found is None:
            print("done before the kill")
            break
        print(
            f"kill {number + 1}, {delay:.1f} s after its {'start' if early else 'first checkpoint'}: "
            f"back to step {found['step']}, {found['lost']} lost, {found['beyond']} log lines dropped, "
            f"torn line {found['torn']}, unfinished checkpoint {found['partial']}",
            flush=True,
        )
    finish(config, options.output / "killed")
    compare(options.output / "whole" / "autoencoder", options.output / "killed" / "autoencoder")


if __name__ == "__main__":
    main()
