"""info, solvers, doctor, train, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from medrecon.cli.options import Output, UsageError
from medrecon.cli.progress import progress
from medrecon.cli.show import note, show_json, show_table, show_tree


def info(path: Path, /, *, out: Output = Output()) -> int:
    """What is in a file or folder: series, grid, spacing, units; or the content of a measurement file.

    Parameters
    ----------
    path
        DICOM folder or file, NIfTI file, or measurement file
    """
    from medrecon.cli.inspect import inspect

    (show_json if out.json else show_tree)(inspect(path))
    return 0


def solvers(*, out: Output = Output()) -> int:
    """The solvers there are: name, modalities, whether they need a trained prior, one line each."""
    from medrecon.pipeline import describe_solvers

    rows = describe_solvers()
    if out.json:
        show_json(rows)
    else:
        show_table(
            [{**row, "modalities": ", ".join(row["modalities"])} for row in rows],
            ("name", "modalities", "needs_prior", "summary"),
        )
    return 0


def doctor(*, out: Output = Output()) -> int:
    """Check torch, CUDA, ASTRA, DICOM codecs and the shipped weights; exit code 1 if something is broken."""
    from medrecon.cli.doctor import examine

    found = examine()
    (show_json if out.json else show_tree)(found)
    return 1 if found["problems"] else 0


def train(
    what: Literal["autoencoder", "diffusion", "prior"],
    configuration: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    expert: str | None = None,
    device: str | None = None,
    out: Output = Output(),
) -> int:
    """Train, or resume training, a prior: first its autoencoder, then its diffusion model; then write the prior.

    The diffusion model may consist of several networks, "experts" for a range of noise. `diffusion` trains them one
    after the other and writes the prior; with --expert only one, and `prior` writes what is there.

    On several GPUs: torchrun --standalone --nproc-per-node N -m medrecon train ... --device cuda. Ctrl-C and SIGTERM
    save before they end; the same command goes on.

    Parameters
    ----------
    what
        which part of the prior
    configuration
        YAML file, see models/weights/*.yaml and docs/guide/train_your_own.md
    output
        folder of checkpoints and of the finished prior; a run found there is resumed
    expert
        name of the only network of the diffusion model to train
    device
        cpu, cuda or cuda:N; overrides the configuration
    """
    from medrecon.cli.training import load_config, summary, train_parts
    from medrecon.training.loop.distributed import process_group, rank

    if expert is not None and what != "diffusion":
        raise UsageError(f"--expert {expert}: only for `train diffusion`")
    config = load_config(configuration, device)
    with process_group(config.autoencoder_loop.device) as place:
        config = config if place == config.autoencoder_loop.device else config.on(place)
        result = train_parts(what, config, output, expert, out.quiet)
        if rank() > 0:
            return 0
    if out.json:
        show_json(result)
    else:
        show_tree(summary(result))
    if what != "autoencoder" and expert is None:
        note(f"wrote {output / 'prior.safetensors'} and its model card, prior.json")
    return 0


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    device: str = "cpu",
    seed: int = 0,
    out: Output = Output(),
) -> int:
    """Reconstruct three real scans with every solver: table, pictures, NIfTI, DICOM. Needs no network.

    Parameters
    ----------
    output
        folder to write; an earlier demo there is replaced, anything else is refused
    device
        cpu, cuda or cuda:N
    seed
        seed of noise, masks and stochastic solvers
    """
    if output.suffix:
        raise UsageError(f"-o {output}: give a folder")

    from medrecon.demo import run_demo

    with progress("demo", out.quiet) as report:
        rows = run_demo(output, device=device, seed=seed, on_progress=report)
    if out.json:
        show_json(rows)
    else:
        show_table(rows, ("case", "solver", "psnr_db", "ssim", "rmse", "chi2", "seconds"))
    note(f"pictures, NIfTI, DICOM and results.json are in {output}")
    return 0
