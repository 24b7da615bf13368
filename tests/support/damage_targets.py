"""What can be damaged: an input of every reader, how it is read, and what came of reading a damaged one."""

import contextlib
import hashlib
import importlib
import io
import json
import logging
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import damage
import format_laws
import numpy as np
import torch
from torch import Tensor

from medrecon import formats
from medrecon.cli.main import main
from medrecon.cli.options import UsageError
from medrecon.core.scan import Scan
from medrecon.core.scan_values import geometry_values, noise_values
from medrecon.core.volume import Volume
from medrecon.formats import find
from medrecon.formats.base import ImageReader, RawReader
from medrecon.formats.measurement_file import load_scan

BAD = ("wrong", "foreign", "unnamed", "hang", "crash", "memory")
"""accepted with wrong values though the format can tell; a traceback; a message without the file; and so on"""
GOOD = ("refused", "right", "told", "other")
"""named; the same values; other values and a warning; other values in a format that cannot tell"""


@dataclass(frozen=True)
class Target:
    """An input of a reader.

    `checked`: a checksum covers all of it, so that no other value may be accepted. `text`: cut short it is text still.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    checked: bool = False
    text: bool = False


@dataclass(frozen=True)
class Outcome:
    kind: str
    what: str
    message: str = ""


@dataclass(frozen=True)
class Whole:
    """What an input gives before it is damaged: where it is, a digest of its values, and what the reader warns of."""

    path: Path
    digest: str
    warnings: frozenset[str]


def targets() -> dict[str, Target]:
    """By name: every format there is, and the files that are no scans."""
    found = [Target(f.name, _example(f.name), _reader(f), f.name in ("measurement", "nifti")) for f in find.found()]
    found += [
        Target("nifti_plain", _plain_nifti, formats.read),
        Target("nifti_sidecar", _sidecar, lambda path: formats.read(path.with_suffix(".nii"))),
        Target("manifest", _manifest, _read_manifest, text=True),
        Target("training", _training, _read_training, text=True),
        Target("options", _options, _read_options, text=True),
        Target("card", _card, _read_prior),
        Target("weights", _weights, _read_prior, checked=True),
        Target("store", _store, _read_store),
        Target("shard", _shard, lambda path: _read_store(path.parent), checked=True),
        Target("sheet", _sheet, lambda path: _read_sheets(path.parent), checked=True),
        Target("table", _table, lambda path: _read_sheets(path.parent), text=True),
    ]
    return {target.name: target for target in found}


def digest(value: Any) -> str:
    """Of everything that numbers are computed from."""
    seen = hashlib.sha256()
    for part in _parts(value):
        seen.update(part)
    return seen.hexdigest()


def finite(value: Any) -> bool:
    """Whether all samples, voxels and places are numbers."""
    tensors = [value.data, value.affine] if isinstance(value, Scan | Volume) else []
    return all(bool(t.isfinite().all()) for t in tensors)


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, Volume):
        value = (value.data, value.affine, value.units, value.modality)
    elif isinstance(value, Scan):
        mine = (value.data, value.affine, value.units, value.image_shape, value.mask, value.maps, value.mu_water)
        value = (*mine, geometry_values(value), noise_values(value))
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode() + value.detach().contiguous().numpy().tobytes()
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from (str(key).encode(), *_parts(value[key]))
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _parts(member)
    else:
        yield repr(value).encode()


def whole(target: Target, path: Path) -> Whole:
    """Read an input as it is."""
    with _listening() as heard:
        return Whole(path, digest(target.read(path)), frozenset(text.replace(str(path.parent), "") for text in heard))


def attempt(target: Target, original: Whole, folder: Path, seed: int) -> Outcome:
    """Damage a copy in a new folder by the seed, read it, and say what came of it."""
    path = damage.copied(original.path, folder)
    what = damage.damage(path, random.Random(f"{target.name}:{seed}"))
    try:
        with _listening() as heard:
            value = target.read(path)
            same, sound = digest(value) == original.digest, finite(value)
    except (ValueError, OSError, UsageError) as error:
        named = str(folder) in str(error) or (isinstance(error, UsageError) and " --" in str(error))  # or the option
        return Outcome("refused" if named else "unnamed", what, f"{type(error).__name__}: {error}"[:400])
    except Exception as error:
        return Outcome("foreign", what, f"{type(error).__name__}: {error}"[:400])
    if same:
        return Outcome("right", what)
    if not sound or target.checked or (what.endswith(": cut") and not target.text):
        return Outcome("wrong", what, "other values" if sound else "values that are no numbers")
    news = [text for text in heard if text.replace(str(path.parent), "") not in original.warnings]
    return Outcome("told" if news else "other", what, "; ".join(news)[:400])


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """What medrecon warns of meanwhile; the warnings of Python and of libraries are not shown."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("medrecon").addHandler(handler)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield texts
    finally:
        logging.getLogger("medrecon").removeHandler(handler)


def _example(name: str) -> Callable[[Path], Path]:
    return lambda folder: format_laws.example(next(f for f in find.found() if f.name == name), folder)


def _reader(format: Any) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        formats.info(path)
        if isinstance(format, RawReader):
            return formats.read_raw(path)
        return formats.read(path) if isinstance(format, ImageReader) else load_scan(path)

    return read


def _plain_nifti(folder: Path) -> Path:
    return formats.write(format_laws.volume("CT"), folder / "v.nii")


def _sidecar(folder: Path) -> Path:
    return formats.write(format_laws.volume("CT"), folder / "v.nii").with_suffix(".json")


def _manifest(folder: Path) -> Path:
    from data_folders import HEAD

    files = "[[files]]\npath = 'a/b.nii'\nsize = 12\n[[files]]\npath = 'c.nii'\nsize = 13\n"
    text = (
        HEAD + "kind = 'nifti'\nslope = 1.5\nsubject = '^(s\\d+)'\n[split]\nval = 0.2\ntest = 0.1\nseed = 3\n" + files
    )
    (folder / "m.toml").write_text(text)
    return folder / "m.toml"


def _read_manifest(path: Path) -> Any:
    from medrecon.data.manifest import load_manifest

    return load_manifest(path).model_dump(mode="json")


def _training(folder: Path) -> Path:
    text = Path(formats.__file__).parents[1].joinpath("models", "weights", "ct.yaml").read_text()
    (folder / "c.yaml").write_text(text)
    return folder / "c.yaml"


def _read_training(path: Path) -> Any:
    from medrecon.cli.training import load_config

    return load_config(path, "cpu").model_dump(mode="json")


def _options(folder: Path) -> Path:
    volume = format_laws.volume("CT")
    formats.write(replace(volume, data=volume.data.repeat(1, 2, 2)), folder / "v.nii")
    (folder / "o.yaml").write_text(
        "modality: ct\nviews: 30\narc: 180.0\ni0: 50000.0\ncouch: true\nslices: 0:2\nseed: 3\n"
    )
    return folder / "o.yaml"


def _read_options(path: Path) -> Any:
    """What the plan says; as UsageError what the command line says on stderr."""
    said, told = io.StringIO(), io.StringIO()
    command = ["simulate", str(path.with_name("v.nii")), "-o", str(path.with_name("s.h5")), "--dry-run", "--json"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        code = main([*command, "--config", str(path)])
    if code:
        text = told.getvalue()
        raise UsageError(text if "Traceback" not in text else "a traceback")
    plan = json.loads(said.getvalue())
    return {key: value for key, value in plan.items() if key not in ("source", "output")}


def _card(folder: Path) -> Path:
    from medrecon.models.networks.pixel_space import PixelSpace
    from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
    from medrecon.models.store import save_prior

    experts = {"all": {"channels": [16], "res_blocks": 1}}
    card = {"units": "HU", "modality": "CT", "error": 1.0, "values": {"type": "linear", "low": 0.0, "high": 1.0}}
    card |= {"autoencoder": {"kind": "pixels", "factor": 2}, "diffusion": {"sigma_min": 0.01, "experts": experts}}
    with torch.random.fork_rng():
        denoiser = WienerUNet({"all": ExpertConfig(**experts["all"])}, 0.01, 4, 8, ())
    save_prior(folder / "p.safetensors", PixelSpace(2), denoiser, card)
    return folder / "p.json"


def _weights(folder: Path) -> Path:
    return _card(folder).with_suffix(".safetensors")


def _read_prior(path: Path) -> Any:
    from medrecon.models.store import load_prior

    prior = load_prior(str(path.with_suffix(".safetensors")))
    modules = [m.state_dict() for m in (prior.denoiser, prior.autoencoder) if isinstance(m, torch.nn.Module)]
    return (*modules, prior.values, prior.units, prior.modality, float(prior.error))


def _store(folder: Path) -> Path:
    from data_folders import manifest, nifti

    from medrecon.data.build import build_store

    source = folder.with_name(folder.name + "-source")
    for i in range(3):
        nifti(source / "train" / f"s{i}.nii.gz", seed=i)
    text = (manifest(source, "kind = 'nifti'\ntrain = 'train'\n").path).read_text()
    (source / "m.toml").write_text(text.replace('"CT"', '"MR"').replace('"HU"', '"a.u."'))
    from medrecon.data.manifest import load_manifest

    build_store(load_manifest(source / "m.toml"), folder / "store")
    return folder / "store" / "index.json"


def _shard(folder: Path) -> Path:
    return next(_store(folder).parent.glob("*.npy"))


def _read_store(path: Path) -> Any:
    from medrecon.data.store import Store

    store = Store(path if path.is_dir() else path.parent)
    if damaged := store.damaged():
        raise ValueError(f"{store.folder}: {damaged}")
    return [(s.data, s.split, [vars(place) for place in s.places()]) for s in store.shards], store.slope


def _sheet(folder: Path) -> Path:
    from sheets import write_split

    generator = np.random.default_rng(0)
    write_split(folder / "train", generator.integers(0, 4000, (4, 16, 16)), ["x\ta\t", "x\ta\t", "x\tb\t", "x\tb\t"])
    return folder / "train" / "s.png"


def _table(folder: Path) -> Path:
    return _sheet(folder).with_name("index.tsv")


def _read_sheets(folder: Path) -> Any:
    slices = importlib.import_module("medrecon.training.images.slices").read_sheets(folder, 1.0, -1024.0)
    return slices.data, slices.subjects, slices.origins
