"""info, solvers, doctor, train, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from medrecon.cli.options import Output, UsageError
from medrecon.cli.progress import progress
from medrecon.cli.show import note, show_json, show_table, show_tree

if TYPE_CHECKING:
    from medrecon.training.config import TrainConfig


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
        show_table([{**row, "modalities": ", ".join(row["modalities"])} for row in rows],
                   ("name", "modalities", "needs_prior", "summary"))  # fmt: skip
    return 0


def doctor(*, out: Output = Output()) -> int:
    """Check torch, CUDA, ASTRA, DICOM codecs and the shipped weights; exit code 1 if something is broken."""
    from medrecon.cli.doctor import examine

    found = examine()
    (show_json if out.json else show_tree)(found)
    return 1 if found["problems"] else 0


def train(
    what: Literal["autoencoder", "diffusion"], configuration: Path, /, *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])], device: str | None = None, out: Output = Output(),
) -> int:  # fmt: skip
    """Train, or resume training, a prior: first its autoencoder, then its diffusion model.

    On several GPUs: torchrun --standalone --nproc-per-node N -m medrecon train ... --device cuda. Ctrl-C and SIGTERM
    save before they end; the same command goes on.

    Parameters
    ----------
    what
        which half of the prior
    configuration
        YAML file, see medrecon/training/*.yaml
    output
        folder of checkpoints and of the finished prior; a run found there is resumed
    device
        cpu, cuda or cuda:N; overrides the configuration
    """
    from medrecon.cli.training import load_config
    from medrecon.training.distributed import process_group, rank, world_size

    config = load_config(configuration, device)
    with process_group(getattr(config, f"{what}_loop").device) as place:
        if world_size() > 1:
            config = load_config(configuration, place)
        result = _train(what, config, output, quiet=out.quiet or rank() > 0)
        if rank() == 0:
            (show_json if out.json else show_tree)(result)
    return 0


def _train(what: str, config: TrainConfig, output: Path, quiet: bool) -> dict[str, Any]:
    from medrecon.training import run

    with progress(f"train {what}", quiet) as bar:

        def report(step: int, steps: int, loss: float, scores: dict[str, float]) -> None:
            bar(step, steps)
            if scores:
                text = ", ".join(f"{k} {v:.4g}" for k, v in scores.items())
                note(f"step {step}: loss {loss:.4g}, {text}")

        work = run.train_autoencoder if what == "autoencoder" else run.train_diffusion
        return work(config, output, report)


def demo(
    *, output: Annotated[Path, Parameter(name=["--output", "-o"])], device: str = "cpu", seed: int = 0,
    out: Output = Output(),
) -> int:  # fmt: skip
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
