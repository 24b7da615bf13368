"""Mistakes that users make, and what medrecon answers to each: writes docs/guide/mistakes.md.

    python benchmarks/robustness/mistakes.py            # writes the page
    python benchmarks/robustness/mistakes.py --show     # prints it

Everything runs in this process, in a temporary folder of small phantoms.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from medrecon import formats
from medrecon.cli import main
from medrecon.core.volume import Modality, Units, Volume

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "mistakes.md"
HEAD = """# Mistakes, and what medrecon answers

Written by `python benchmarks/robustness/mistakes.py`, which makes each mistake and notes the answer;
`tests/cli/test_mistakes.py` holds the page to it. The answers stand on stderr. Exit codes: 1 failed, 2 wrong usage, 0
where the command goes on after a warning.

The folder has `chest/` (a CT series in DICOM), `two/` (two series), `ct.nii.gz` and `mr.nii.gz`, `ct.h5` and `mr.h5`
(measurement files simulated from them), raw k-space (`knee.h5` of fastMRI, `scan.dat` of Siemens, `kspace.npy`),
`fbp.nii.gz`, which was reconstructed, links to `mr.h5` and to a slice of `chest/`, and some files that are damaged or
of no use.
"""

MISTAKES: dict[str, list[tuple[str, str]]] = {
    "The wrong kind of input": [
        ("An image where a measurement is due", "recon chest/ -o x.nii.gz --solver tv"),
        ("The same with NIfTI", "recon ct.nii.gz -o x.nii.gz --solver tv"),
        ("Raw data where a measurement is due", "recon knee.h5 -o x.nii.gz --solver tv"),
        ("The same, Siemens", "recon scan.dat -o x.nii.gz --solver tv"),
        ("A measurement where an image is due", "simulate ct.h5 -o x.h5 --modality ct"),
        ("Raw data where an image is due", "simulate kspace.npy -o x.h5 --modality mri"),
        ("An image to import", "import chest/ -o x.h5"),
        ("A measurement to import", "import mr.h5 -o x.h5"),
        ("A measurement to evaluate", "evaluate ct.h5 ct.nii.gz"),
        ("A CT measurement to undersample", "undersample ct.h5 -o x.h5"),
        ("A CT measurement to export", "export ct.h5 -o x.cfl --format bart"),
        ("A folder with two series", "simulate two/ -o x.h5 --modality ct"),
        ("A folder without images", "simulate notes/ -o x.h5 --modality ct"),
        ("A folder where a measurement is due", "recon notes/ -o x.nii.gz --solver tv"),
        ("Some other file", "info notes/plan.txt"),
        ("An empty file", "info empty.h5"),
        ("A truncated measurement file", "recon cut.h5 -o x.nii.gz --solver tv"),
        ("A truncated image", "simulate cut.nii.gz -o x.h5 --modality ct"),
        ("A file that is not there", "recon ctt.h5 -o x.nii.gz --solver tv"),
        ("An image as configuration", "recon ct.h5 -o x.nii.gz --solver tv --config ct.nii.gz"),
        ("An image as configuration of a training", "train autoencoder ct.nii.gz -o run"),
        ("A data set without a manifest", "data check notes/"),
        ("An image as manifest", "data check ct.nii.gz"),
    ],
    "The wrong name": [
        ("A misspelt command", "recno ct.h5"),
        ("The same, asking for help", "recno --help"),
        ("A misspelt solver", "recon ct.h5 -o x.nii.gz --solver fpb"),
        ("A misspelt option", "simulate ct.nii.gz -o x.h5 --modality ct --vews 60"),
        ("A setting as an option", "recon ct.h5 -o x.nii.gz --solver tv --iterations 50"),
        ("A misspelt setting", "recon ct.h5 -o x.nii.gz --solver tv --settings.iteratons 50"),
        ("A misspelt key in a configuration", "simulate ct.nii.gz -o x.h5 --modality ct --config typo.yaml"),
        ("A prior that is not there", "recon ct.h5 -o x.nii.gz --solver dds --prior ct_pixels"),
        ("A class that the prior does not know", "recon ct.h5 -o x.nii.gz --solver dds --label chest"),
        ("A misspelt format", "import kspace.npy -o x.h5 --format npy"),
        ("A misspelt format of an export", "export mr.h5 -o x.cfl --format brat"),
        ("A misspelt diagnostic", "diagnose ct --data ct.nii.gz -o out --only round-trip"),
    ],
    "Something left out": [
        ("The modality", "simulate ct.nii.gz -o x.h5"),
        ("The output", "recon ct.h5 --solver tv"),
        ("The solver", "recon ct.h5 -o x.nii.gz"),
        ("The input", "recon -o x.nii.gz --solver tv"),
        ("A variable of the shell that is not set", "recon ct.h5 -o '' --solver tv"),
        ("What kind of image a NIfTI file holds", "evaluate fbp.nii.gz plain.nii.gz"),
    ],
    "A value that cannot be": [
        ("Too few views", "simulate ct.nii.gz -o x.h5 --modality ct --views 0"),
        ("A word for a number", "simulate ct.nii.gz -o x.h5 --modality ct --views many"),
        ("No photons", "simulate ct.nii.gz -o x.h5 --modality ct --i0 0"),
        ("Not a number", "simulate ct.nii.gz -o x.h5 --modality ct --i0 nan"),
        ("More than a turn", "simulate ct.nii.gz -o x.h5 --modality ct --arc 720"),
        (
            "More centre lines than the acceleration allows",
            "simulate mr.nii.gz -o x.h5 --modality mri --accel 8 --acs 60",
        ),
        ("Slices that are not there", "recon ct.h5 -o x.nii.gz --solver fbp --slices 2:9"),
        ("Slices in words", "recon ct.h5 -o x.nii.gz --solver fbp --slices first"),
        ("A setting in words", "recon ct.h5 -o x.nii.gz --solver tv --settings.iterations many"),
        ("A setting below its range", "recon ct.h5 -o x.nii.gz --solver tv --settings.iterations 0"),
        ("Not a number for a setting", "recon mr.h5 -o x.nii.gz --solver cg-sense --settings.tikhonov nan"),
        ("A batch of none", "recon ct.h5 -o x.nii.gz --solver fbp --batch 0"),
        ("Half a slice", "recon ct.h5 -o x.nii.gz --solver fbp --batch 0.5"),
        ("A seed below 0", "recon ct.h5 -o x.nii.gz --solver fbp --seed -1"),
        ("More rows than the image has", "simulate ct.nii.gz -o x.h5 --modality ct --size 64 --dry-run"),
        ("More coils than any scanner has", "simulate mr.nii.gz -o x.h5 --modality mri --coils 500"),
        ("Less noise than single precision knows", "simulate mr.nii.gz -o x.h5 --modality mri --snr 400"),
        ("Steps without end", "recon ct.h5 -o x.nii.gz --solver tv --settings.iterations 1000000000"),
        ("A setting beyond single precision", "recon ct.h5 -o x.nii.gz --solver tv --settings.strength 1e300"),
        ("More lines than there are", "undersample mr.h5 -o x.h5 --acs 100 --accel 2"),
        ("Nothing left to train on", "data split chest/ -o x.toml --val 0.5 --test 0.5"),
        ("One replica", "noise mr.h5 -o x.nii.gz --solver cg-sense --replicas 1"),
        ("A device that there is not", "recon ct.h5 -o x.nii.gz --solver fbp --device gpu"),
        ("A device that there is not, to diagnose", "diagnose ct --data chest/ -o out --device gpu"),
        ("A GPU that there is not", "recon ct.h5 -o x.nii.gz --solver fbp --device cuda --dry-run"),
    ],
    "What does not go together": [
        ("A solver of the other modality", "recon ct.h5 -o x.nii.gz --solver cg-sense"),
        ("A prior of the other modality", "recon mr.h5 -o x.nii.gz --solver resample --prior ct_pixel"),
        ("The same, only asked", "recon mr.h5 -o x.nii.gz --solver resample --prior ct_pixel --dry-run"),
        ("A prior for a solver without one", "recon ct.h5 -o x.nii.gz --solver tv --prior ct"),
        ("A class for a solver without a prior", "recon ct.h5 -o x.nii.gz --solver tv --label chest"),
        ("A mode for a solver without modes", "recon ct.h5 -o x.nii.gz --solver tv --mode fast"),
        ("Coil maps for CT", "recon ct.h5 -o x.nii.gz --solver tv --maps espirit"),
        ("Options of the other modality", "simulate ct.nii.gz -o x.h5 --modality ct --accel 4"),
        ("Lines of a grid for spokes", "simulate mr.nii.gz -o x.h5 --modality mri --trajectory golden --acs 24"),
        ("CT of a DICOM series as MRI", "simulate chest/ -o x.h5 --modality mri"),
        ("CT against MR", "evaluate fbp.nii.gz mr.nii.gz"),
        ("Two images of different places", "evaluate fbp.nii.gz elsewhere.nii.gz"),
        ("An option the format has no use for", "import kspace.npy -o x.h5 --centre 3"),
        ("Partial Fourier of a scan that has none", "recon mr.h5 -o x.nii.gz --solver homodyne"),
        ("A DICOM template for a NIfTI file", "recon ct.h5 -o x.nii.gz --solver fbp --template chest/"),
        ("An image as prior", "recon ct.h5 -o x.nii.gz --solver dds --prior ct.nii.gz"),
        ("Two measurements at once", "recon ct.h5 mr.h5 -o x.nii.gz --solver fbp"),
    ],
    "Units": [
        ("Values between 0 and 1 as CT", "simulate unit.nii.gz -o x.h5 --modality ct --views 8"),
        ("Attenuation as CT", "simulate mu.nii.gz -o x.h5 --modality ct --views 8"),
    ],
    "The output": [
        ("It is there already", "recon ct.h5 -o fbp.nii.gz --solver fbp"),
        ("An unknown type of image", "recon ct.h5 -o x.png --solver fbp"),
        ("An image to simulate into", "simulate ct.nii.gz -o x.nii.gz --modality ct"),
        ("A folder of something else", "recon ct.h5 -o notes/ --solver fbp --overwrite"),
        ("A noise map as DICOM", "noise mr.h5 -o x/ --solver cg-sense"),
        ("The input itself", "undersample mr.h5 -o mr.h5 --accel 2 --acs 8 --overwrite"),
        ("A link to the input", "export mr.h5 -o link.h5 --format ismrmrd --overwrite"),
        ("A link to a slice of the input", "simulate chest/ -o slice.h5 --modality ct --overwrite"),
        ("The folder that holds the input", "recon ct.h5 -o . --solver fbp --overwrite"),
        ("The folder of the patient's images", "recon ct.h5 -o chest/ --solver fbp --template chest/ --overwrite"),
        ("A pipe", "recon ct.h5 -o pipe.nii.gz --solver fbp --overwrite"),
        ("A file where a store is due", "data index set.toml -o ct.h5"),
    ],
}


def phantom(modality: Modality, units: Units, place: float = 0.0) -> Volume:
    """A disc of water (HU, 1/mm) or of signal (a.u.), 3 slices of 32 x 32, 4 mm."""
    axis = torch.linspace(-1, 1, 32)
    disc = ((axis[:, None].square() + axis.square()) < 0.5).float().expand(3, -1, -1)
    affine = torch.diag(torch.tensor([-4.0, -4.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([62.0 + place, 62.0, 0.0])
    values = {"HU": 1000 * (disc - 1), "1/mm": 0.0192 * disc, "a.u.": 300 * disc}[units]
    return Volume(values, affine, units, modality)


def bare(path: Path, values: torch.Tensor) -> None:
    """NIfTI as other programs write it: nothing beside it says what it holds."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(values.permute(2, 1, 0).numpy(), np.diag([4.0, 4.0, 3.0, 1.0])), path)


def make_inputs(folder: Path) -> None:
    """Write everything that the mistakes are made with."""
    ct, mr = phantom("CT", "HU"), phantom("MR", "a.u.")
    for name, volume in (("ct.nii.gz", ct), ("mr.nii.gz", mr), ("elsewhere.nii.gz", phantom("CT", "HU", 900.0))):
        formats.write(volume, folder / name)
    formats.write(ct, folder / "chest")
    formats.write(ct, folder / "two" / "first")
    formats.write(phantom("CT", "HU", 900.0), folder / "two" / "second")
    bare(folder / "plain.nii.gz", ct.data)
    bare(folder / "unit.nii.gz", (ct.data + 1000) / 1000)
    bare(folder / "mu.nii.gz", 0.0192 * (1 + ct.data / 1000))
    run("simulate ct.nii.gz -o ct.h5 --modality ct --views 16 --size 32 --quiet")
    run("simulate mr.nii.gz -o mr.h5 --modality mri --accel 2 --acs 8 --mask equispaced --coils 2 --quiet")
    run("recon ct.h5 -o fbp.nii.gz --solver fbp --quiet")
    np.save(folder / "kspace.npy", np.random.default_rng(0).standard_normal((2, 2, 32, 32)).astype(np.complex64))
    raw(folder)
    (folder / "notes").mkdir()
    (folder / "notes" / "plan.txt").write_text("scan on Monday\n")
    (folder / "empty.h5").touch()
    for name in ("ct.h5", "ct.nii.gz"):
        whole = (folder / name).read_bytes()
        (folder / name.replace("ct", "cut")).write_bytes(whole[: len(whole) // 2])
    (folder / "typo.yaml").write_text("viewz: 60\n")
    (folder / "set.toml").write_text(
        'name = "x"\nmodality = "CT"\nunits = "HU"\ncontent = "1"\nlicence = "-"\nlicence_checked = "-"\n'
    )
    (folder / "link.h5").symlink_to("mr.h5")
    (folder / "slice.h5").symlink_to(min((folder / "chest").iterdir()))
    os.mkfifo(folder / "pipe.nii.gz")


def raw(folder: Path) -> None:
    """The marks of a fastMRI and of a Siemens file."""
    import h5py

    with h5py.File(folder / "knee.h5", "w") as h5:
        h5["kspace"] = np.zeros((1, 4, 8, 8), np.complex64)
        h5["ismrmrd_header"] = "<ismrmrdHeader/>"
        h5.attrs["acquisition"] = "CORPD_FBK"
    header = np.array([0, 1], "<u4").tobytes()
    (folder / "scan.dat").write_bytes(header + bytes(20000))


def run(line: str) -> tuple[int, str]:
    """Exit code and what stands on stderr, progress left out."""
    said, silent = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(silent):
        code = main(shlex.split(line))
    for path in Path().glob("x.*"):
        path.unlink()
    return code, said.getvalue().strip()


@contextlib.contextmanager
def inputs() -> Iterator[Path]:
    """Work in a temporary folder that has all inputs."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            make_inputs(Path(name))
            yield Path(name)
        finally:
            os.chdir(before)


def stable(text: str) -> str:
    """Leave out what changes from machine to machine: sizes, hashes and where medrecon is installed."""
    text = re.sub(r"\S*(?=/models/weights|/chest/medrecon_)", "...", text)
    text = re.sub(r"\b[0-9a-f]{8}(?=: ')", "LABEL", text)
    return re.sub(r"(?<=down to )-\d+|\b\d{3,}(?= voxels)|(?<==\s)\d{3,}", "N", text)


def section(title: str) -> str:
    """Make the mistakes of a section; the text of the page."""
    parts = [f"## {title}\n"]
    for what, line in MISTAKES[title]:
        parts.append(entry(what, line))
    return "\n".join(parts)


def entry(what: str, line: str) -> str:
    """Make one mistake; its paragraph of the page."""
    code, said = run(f"{line} --quiet" if line.split()[0] in ("recon", "simulate", "noise") else line)
    lines = [
        textwrap.fill(part, 116, subsequent_indent="  ", break_on_hyphens=False) for part in stable(said).split("\n")
    ]
    return f"{what} (exit code {code}):\n\n```\n$ medrecon {line}\n{chr(10).join(lines)}\n```\n"


def page() -> str:
    """All of it."""
    with inputs():
        return "\n".join([HEAD, *(section(title) for title in MISTAKES)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true")
    text = page()
    print(text) if parser.parse_args().show else PAGE.write_text(text)
