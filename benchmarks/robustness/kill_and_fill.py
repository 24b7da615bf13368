"""Kill what writes at random moments, and fill its disk: old outputs stay whole, and the next run clears what is left.

    OMP_NUM_THREADS=1 python benchmarks/robustness/kill_and_fill.py --kills 200 --disks 60

Every run is a fork of this process, which has imported everything, so that hundreds cost minutes. A kill is SIGKILL or
SIGTERM at a random time, or SIGKILL before a random rename, where a half of an output could show. A full disk is a
tmpfs with a random rest of space, which needs root; without root it is a limit on the size of files. Prints a table;
exit code 1 if an output was lost or half, something was left over, or a run crashed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from medrecon import formats
from medrecon.cli import main as medrecon
from medrecon.core import checksum
from medrecon.core.volume import Volume
from medrecon.data.store import Store
from medrecon.formats.measurement_file import load_scan
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.store import load_prior, save_prior
from medrecon.training.loop.checkpoint import training_facts
from medrecon.training.loop.config import LoopConfig
from medrecon.training.loop.steps import fit

ABSENT = "absent"
LONGEST = 120
"""Seconds after which a run hangs."""


@dataclass(frozen=True)
class Job:
    """Something that writes into a folder.

    Attributes:
        run: (folder, whether it is the second, new output) -> exit code.
        content: what the output holds, told by a reader; raises ValueError where it refuses, FileNotFoundError where
            there is none.
        goes_on: a run that was cut off is finished by the next; an output that is not finished counts as absent.
    """

    name: str
    run: Callable[[Path, bool], int]
    content: Callable[[Path], str]
    goes_on: bool = False


def command(*argv: str) -> int:
    return medrecon([*argv, "--quiet"])


def prepare(*argv: str) -> None:
    if code := command(*argv):
        raise SystemExit(code)


def image(path: Path) -> str:
    """Values, place, units and modality of an image."""
    if not path.exists():
        raise FileNotFoundError(path)
    volume = formats.read(path)
    return checksum.of_content(volume.data, volume.affine.float().round(decimals=3), volume.units, volume.modality)


def measurement(path: Path) -> str:
    scan = load_scan(path)
    return checksum.of_content(scan.data, scan.affine)


def kspace(path: Path) -> str:
    """k-space and coil maps of BART's files."""
    if not path.exists():
        raise FileNotFoundError(path)
    parts = [formats.read_raw(path).data, torch.from_numpy(_cfl(path.with_name("e_maps.cfl")))]
    return checksum.of_content(*parts)


def _cfl(path: Path):  # type: ignore[no-untyped-def]
    from medrecon.formats.bart.cfl import read_cfl

    return read_cfl(path).copy()


def store(path: Path) -> str:
    held = Store(path)
    if broken := held.damaged():
        raise ValueError(str(broken))
    return checksum.of_content(*(shard.sha256 for shard in held.shards))


def trained(folder: Path) -> str:
    return str(training_facts(folder)["steps"] > 0)


def train(folder: Path, new: bool) -> int:
    module = torch.nn.Linear(64, 64)
    config = LoopConfig(steps=60 if new else 20, warmup=1, save_seconds=1e-9, validate_every=10, log_every=2)
    fit(module, lambda m, g: m(torch.randn(4, 64, generator=g)).square().mean(), lambda m: {}, config, folder, _silent)
    return 0


def _silent(*_: object) -> None:
    pass


def prior(folder: Path, new: bool) -> int:
    expert = ExpertConfig(channels=(16,))
    torch.manual_seed(int(new))
    denoiser = WienerUNet({"all": expert}, 0.01, 16, 4)
    diffusion = {"sigma_min": 0.01, "experts": {"all": expert.model_dump()}}
    card = {"autoencoder": {"kind": "pixels", "factor": 4}, "values": {"type": "linear"}, "diffusion": diffusion}
    folder.mkdir(exist_ok=True)
    about = {"units": "a.u.", "modality": "MR", "error": 0.0}
    save_prior(folder / "p.safetensors", PixelSpace(4), denoiser, card | about)
    return 0


def make_inputs(inputs: Path) -> int:
    """Volumes, measurements and a data set; in a child, as all else: compiled kernels start threads."""
    z = torch.arange(24 * 48 * 48, dtype=torch.float32).reshape(24, 48, 48) % 997 - 400
    grid = torch.eye(4, dtype=torch.float64)
    formats.write(Volume(z, grid, "HU", "CT"), inputs / "ct.nii.gz")
    formats.write(Volume(z + 400, grid, "a.u.", "MR"), inputs / "mr.nii.gz")
    for seed in "01":
        ct, mr = (str(inputs / f"{kind}{seed}.h5") for kind in ("ct", "mr"))
        prepare("simulate", str(inputs / "ct.nii.gz"), "-o", ct, "--modality", "ct", "--views", "24", "--seed", seed)
        prepare(
            "simulate",
            str(inputs / "mr.nii.gz"),
            "-o",
            mr,
            "--modality",
            "mri",
            "--coils",
            "2",
            "--acs",
            "8",
            "--seed",
            seed,
        )
        prepare("export", mr, "-o", str(inputs / f"raw{seed}.h5"), "--format", "fastmri")
    for split in ("train", "val"):
        for subject in range(3):
            folder = inputs / "data" / split / f"s{subject}{split}"
            formats.write(Volume(z + 10 * subject, grid, "HU", "CT"), folder / "x.nii.gz")
    write_manifest(inputs / "data.toml", inputs / "data")
    return 0


def jobs(inputs: Path) -> list[Job]:
    """What is tried, on these inputs."""
    manifest = inputs / "data.toml"

    def told(kind: str, new: bool) -> str:
        return str(inputs / f"{kind}{int(new)}.h5")

    over = "--overwrite"
    simulated = [str(inputs / "ct.nii.gz"), "--modality", "ct", "--views", "24", over]
    fbp = ["--solver", "fbp", over]
    return [
        Job("simulate", lambda f, n: command("simulate", *simulated, "--seed", str(int(n)), "-o", f"{f}/m.h5"),
            lambda f: measurement(f / "m.h5")),
        Job("recon to NIfTI", lambda f, n: command("recon", told("ct", n), "-o", f"{f}/x.nii.gz", *fbp),
            lambda f: image(f / "x.nii.gz")),
        Job("recon to DICOM", lambda f, n: command("recon", told("ct", n), "-o", f"{f}/series/", *fbp),
            lambda f: image(f / "series")),
        Job("import", lambda f, n: command("import", told("raw", n), "-o", f"{f}/i.h5", over),
            lambda f: measurement(f / "i.h5")),
        Job("export", lambda f, n: command("export", told("mr", n), "-o", f"{f}/e.cfl", "--format", "bart", over),
            lambda f: kspace(f / "e.cfl")),
        Job("train", lambda f, n: train(f / "run", n), lambda f: trained(f / "run"), goes_on=True),
        Job("weights", lambda f, n: prior(f / "p", n),
            lambda f: str(load_prior(f"{f}/p/p.safetensors").card["sha256"])),
        Job("index", lambda f, n: command("data", "index", str(manifest), "-o", f"{f}/store") if n else 0,
            lambda f: store(f / "store"), goes_on=True),
    ]  # fmt: skip


def write_manifest(manifest: Path, data: Path) -> None:
    manifest.write_text(
        'name = "x"\nmodality = "CT"\nunits = "HU"\ncontent = "x"\nlicence = "own"\nlicence_checked = "today"\n'
        f'kind = "nifti"\nroot = "{data}"\ntrain = "train"\nval = "val"\n'
    )


def forked(run: Callable[[], int], log: Path, before: Callable[[], None] | None = None) -> int:
    """The process id of a run in a child."""
    if child := os.fork():
        return child
    code = 70
    try:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with this process
        signal.alarm(LONGEST)
        if before:
            before()
        code = run()
    except SystemExit as error:
        code = int(error.code or 0)
    except (ValueError, OSError, RuntimeError) as error:  # as the command line tells them
        print(error, flush=True)
        code = 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, minus the number of the signal that ended it."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def dies_before_rename(number: int) -> Callable[[], None]:
    """What makes this process die, as if killed, before its rename of that number."""

    def arrange() -> None:
        real, left = os.replace, [number]

        def replace(source: object, target: object) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            real(source, target)  # type: ignore[arg-type]

        os.replace = replace  # type: ignore[assignment]

    return arrange


def limited(size: int) -> Callable[[], None]:
    def arrange() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return arrange


class Trial:
    """One job in a folder that holds its old output."""

    def __init__(self, job: Job, work: Path, folder: Path) -> None:
        self.job, self.folder, self.log = job, folder, work / "log"
        self.faults: list[str] = []

    def prepare(self, old: Path) -> None:
        shutil.copytree(old, self.folder, dirs_exist_ok=True, symlinks=True)

    def content(self) -> str:
        try:
            return self.job.content(self.folder)
        except FileNotFoundError:
            return ABSENT
        except ValueError as error:
            return f"refused: {error}"

    def check_end(self, code: int, allowed: set[int]) -> None:
        text = self.log.read_text(errors="replace")
        if code not in allowed or ("Traceback" in text and "Exception ignored" not in text):
            self.faults.append(f"crash: exit code {code}: {text[-300:]}")

    def check_after(self, new: str) -> None:
        """The next run leaves the new output, and nothing else."""
        code = ended(forked(lambda: self.job.run(self.folder, True), self.log))
        self.check_end(code, {0})
        if (got := self.content()) != new:
            self.faults.append(f"after the next run: {got}, not {new}")
        if left := rest(self.folder):
            self.faults.append(f"left over: {left}")


def rest(folder: Path) -> list[str]:
    marks = (".partial", ".lock", ".claim", "journal")
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if any(mark in p.name for mark in marks)]


def killed(trial: Trial, known: tuple[str, str], length: float, draw: random.Random) -> str:
    """Kill a run; how."""
    how = draw.choice(["KILL", "TERM", "rename"])
    before = dies_before_rename(draw.randrange(6)) if how == "rename" else None
    child = forked(lambda: trial.job.run(trial.folder, True), trial.log, before)
    if before is None:
        late = draw.random() < 0.6  # most of the writing is at the end
        time.sleep(draw.uniform(0.6 * length if late else 0, 1.1 * length))
        os.kill(child, signal.SIGKILL if how == "KILL" else signal.SIGTERM)
    trial.check_end(ended(child), {0, 1, -9, 143, -15})
    got = trial.content()
    if got not in known and not (trial.job.goes_on and got == ABSENT) and not _committed(trial):
        trial.faults.append(f"at once: {got}")
    trial.check_after(known[1])
    return how


def _committed(trial: Trial) -> bool:
    """Cut off between renames: it is refused or absent, and all of it is there for the next run to finish."""
    return any((entry / "committed").is_dir() for entry in trial.folder.rglob(".partial-*"))


def filled(trial: Trial, known: tuple[str, str], need: int, room: int, mounted: bool) -> None:
    """Let a run meet a full disk."""
    if mounted:
        filler, free = trial.folder / "filler", shutil.disk_usage(trial.folder).free
        filler.write_bytes(bytes(max(0, free - room)))
    code = ended(forked(lambda: trial.job.run(trial.folder, True), trial.log, None if mounted else limited(room)))
    trial.check_end(code, {0, 1})
    got, text = trial.content(), trial.log.read_text(errors="replace")
    if got not in known and not (trial.job.goes_on and got == ABSENT):
        trial.faults.append(f"full disk: {got}")
    if code == 1 and str(trial.folder) not in text:
        trial.faults.append(f"full disk: the message names no file: {text[-200:]}")
    if code == 1 and not trial.job.goes_on and (left := rest(trial.folder)):
        trial.faults.append(f"full disk: left over {left}")
    if mounted:
        filler.unlink()
    trial.check_after(known[1])


def mount(folder: Path, size: int) -> bool:
    """Put a small tmpfs at a folder; whether that is allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size}".encode()) == 0


def unmount(folder: Path) -> None:
    ctypes.CDLL(None).umount2(bytes(folder), 2)


def measured(job: Job, work: Path) -> tuple[Path, tuple[str, str], float, int]:
    """The folder of the old output; what old and new hold; seconds and bytes of a run."""
    old, new = work / f"{job.name} old", work / f"{job.name} new"
    old.mkdir()
    if ended(forked(lambda: job.run(old, False), work / "log")):
        sys.exit(f"{job.name}: {(work / 'log').read_text()}")
    shutil.copytree(old, new)
    trial = Trial(job, work, old)
    before = trial.content()
    began = time.monotonic()
    code = ended(forked(lambda: job.run(new, True), work / "log"))
    length = time.monotonic() - began
    if code:
        sys.exit(f"{job.name}: {(work / 'log').read_text()}")
    size = sum(p.stat().st_size for p in new.rglob("*") if p.is_file())
    return old, (before, job.content(new)), length, size


def warm() -> None:
    """Import what runs import; nothing is computed, since threads do not survive a fork."""
    outside = "torch._dynamo numba h5py nibabel pydicom highdicom scipy.ndimage scipy.sparse.linalg monai.networks.nets"
    for name in (*outside.split(), "medrecon.pipeline", "medrecon.simulate", "medrecon.data.build"):
        importlib.import_module(name)
    formats.exports(), formats.outputs()


def try_all(options: argparse.Namespace, work: Path) -> list[str]:
    """Kill and fill; the table on stdout, the faults returned."""
    (work / "inputs").mkdir()
    if ended(forked(lambda: make_inputs(work / "inputs"), work / "log")):
        sys.exit((work / "log").read_text())
    chosen = [job for job in jobs(work / "inputs") if not options.only or job.name.split()[0] in options.only]
    draw, faults = random.Random(options.seed), []
    print(f"{'job':16} {'seconds':>8} {'kills':>6} {'disks':>6} {'faults':>7}  how")
    for place, job in enumerate(chosen):
        old, known, length, size = measured(job, work)
        kills, disks = ((n + len(chosen) - 1 - place) // len(chosen) for n in (options.kills, options.disks))
        ways: Counter[str] = Counter()
        found: list[str] = []
        for number in range(kills + disks):
            folder = work / "trial"
            folder.mkdir()
            mounted = number >= kills and mount(folder, 4 * size + (1 << 20))
            trial = Trial(job, work, folder)
            trial.prepare(old)
            if number < kills:
                ways[killed(trial, known, length, draw)] += 1
            else:
                filled(trial, known, size, int(draw.uniform(0, 1.2) * size), mounted)
                ways["tmpfs" if mounted else "limit"] += 1
            if mounted:
                unmount(folder)
            shutil.rmtree(folder)
            found += [f"{job.name}, trial {number}: {fault}" for fault in trial.faults]
        told = ", ".join(f"{n} {way}" for way, n in sorted(ways.items()))
        print(f"{job.name:16} {length:8.2f} {kills:6} {disks:6} {len(found):7}  {told}", flush=True)
        faults += found
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="first words of the jobs' names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warm()
    work = Path(tempfile.mkdtemp(prefix="kill-and-fill-"))
    try:
        faults = try_all(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
