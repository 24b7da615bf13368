"""train: a prior of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from medrecon.cli.options import Output, UsageError
from medrecon.cli.show import check_folder, note, show_json, show_tree

app = App(name="train")


@app.default
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

    On several GPUs: torchrun --standalone --nproc-per-node N -m medrecon train ... --device cuda. Ctrl-C, SIGTERM and
    SIGHUP save before they end; the same command goes on.

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
    check_folder(output)
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
