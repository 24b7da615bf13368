"""Damage to a file, drawn by a seed: what discs, networks, editors and other people's programs do to one."""

import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Change = Callable[[bytes, random.Random], bytes]
HEADER = 2048
"""Most formats say first what they hold."""
NUMBERS = ("<B", "<h", "<i", "<q", ">h", ">i", "<f", "<d")
EXTREMES = (0, 1, -1, 2, 127, 255, 32767, 65535, 2**31 - 1, 2**40, 2**62, 1e-30, 1e300, float("nan"), float("inf"))
SCALARS = re.compile(r"(?<=[=:\[,\s])(\"[^\"\n]*\"|'[^'\n]*'|[\w.+-]+)(?=\s*(?:[,\]}\n#]|$))")
WORDS = ("nan", ".nan", "-1", "0", "1e400", '"text"', "text", "[]", "{}", "[1, 2]", "true", "null", "", "1970-01-01")
WORDS += ("9" * 25, "9" * 5000, '"' + "a" * 100_000 + '"', "[" * 3000, "{a: " * 3000, "../../etc/passwd", "0x7fffffff")


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    raw = bytearray(data)
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def flip_header_bits(data: bytes, rng: random.Random) -> bytes:
    raw = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(min(len(raw), HEADER))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def zero_block(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((16, 64, 512, 4096))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def rubbish_block(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((4, 64, 512))
    return data[:start] + rng.randbytes(len(data[start : start + length])) + data[start + length :]


def set_number(data: bytes, rng: random.Random) -> bytes:
    """A field of the header with a value that its type allows and nothing else: sizes, factors, counters."""
    code = rng.choice(NUMBERS)
    value = rng.choice(EXTREMES)
    if code[1] in "fd":
        packed = struct.pack(code, value if code[1] == "d" or abs(value) < 1e38 else float("inf"))
    else:
        whole = int(value) if abs(value) < 1e19 else 0  # NaN too
        bits = 8 * struct.calcsize(code)
        packed = (whole % (1 << bits)).to_bytes(bits // 8, "little" if code[0] == "<" else "big")
    room = min(len(data), HEADER) if rng.random() < 0.8 else len(data)
    start = rng.randrange(room) // len(packed) * len(packed)
    return data[:start] + packed[: len(data) - start] + data[start + len(packed) :]


def lose_bytes(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 2, 7, 128)) :]


def extra_bytes(data: bytes, rng: random.Random) -> bytes:
    start = rng.choice((rng.randrange(len(data)), len(data)))
    return data[:start] + rng.choice((bytes(3), rng.randbytes(16), data[:200])) + data[start:]


BYTES: tuple[Change, ...] = (
    cut,
    flip_bit,
    flip_header_bits,
    zero_block,
    rubbish_block,
    set_number,
    set_number,
    lose_bytes,
    extra_bytes,
)


def other_value(data: bytes, rng: random.Random) -> bytes:
    """A value of text of another type or size."""
    text = data.decode()
    found = list(SCALARS.finditer(text))
    if not found:
        return data
    place = rng.choice(found)
    return (text[: place.start()] + rng.choice(WORDS) + text[place.end() :]).encode()


def other_lines(data: bytes, rng: random.Random) -> bytes:
    """A line lost, doubled, or of other things."""
    lines = data.decode().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    new = rng.choice(
        ([], [lines[at]] * 2, ["1: 2\n"], ["? [1]\n: 2\n"], ["a." * 5000 + "a = 1\n"], ["\x00\n"], ["\t\n", lines[at]])
    )
    return "".join([*lines[:at], *new, *lines[at + 1 :]]).encode()


TEXT: tuple[Change, ...] = (
    other_value,
    other_value,
    other_value,
    other_lines,
    cut,
    flip_bit,
    zero_block,
    rubbish_block,
)


def in_hdf5(path: Path, rng: random.Random) -> str:
    """Another type, shape, size or place for one dataset or attribute, by h5py itself: the file stays whole."""
    with h5py.File(path, "a") as h5:
        names: list[str] = []
        h5.visit(names.append)
        holders = [h5, *(h5[name] for name in names)]
        attributes = [(holder, key) for holder in holders for key in holder.attrs]
        if attributes and (not names or rng.random() < 0.3):
            holder, key = rng.choice(sorted(attributes, key=lambda pair: (pair[0].name, pair[1])))
            new = rng.choice((None, "text", 7, -1, float("nan"), [1, 2, 3], 2**40, np.zeros((2, 2))))
            del holder.attrs[key]
            if new is not None:
                holder.attrs[key] = new
            return f"attribute {holder.name}@{key} = {new!r:.20}"
        name = rng.choice(sorted(names))
        if not isinstance(h5[name], h5py.Dataset):
            del h5[name]
            return f"{name} lost"
        kind, (what, new) = h5[name].dtype, rng.choice(_datasets(h5[name], rng))
        kept = dict(h5[name].attrs)
        del h5[name]
        if isinstance(new, dict):
            h5.create_dataset(name, dtype=kind, **new)
        elif new is not None:
            h5[name] = new
        if new is not None and isinstance(h5.get(name), h5py.Dataset):
            h5[name].attrs.update(kept)
        return f"{name}: {what}"


def _datasets(dataset: h5py.Dataset, rng: random.Random) -> list[tuple[str, Any]]:
    shape, numbers = dataset.shape, dataset.dtype.kind in "iufc" and dataset.size
    found: list[tuple[str, Any]] = [
        ("lost", None),
        ("text", "text"),
        ("number", 3.0),
        ("empty", np.zeros((0, *shape[1:]))),
    ]
    found.append(("elsewhere", h5py.ExternalLink("/etc/hostname", "/x")))
    if shape:
        huge = tuple(n * 2 ** rng.choice((0, 8, 20)) for n in shape)
        found.append((f"never written {huge}", {"shape": huge, "chunks": tuple(max(1, min(n, 16)) for n in huge)}))
    if not numbers:
        return found
    values = np.asarray(dataset[()])
    found.append(("another rank", values[None]))
    if shape:
        found += [("shorter", values[:-1]), ("turned", values.T), ("as text", np.array([b"a"] * len(values)))]
    if dataset.dtype.kind in "fc" and shape:
        bad = values.copy()
        bad.flat[rng.randrange(bad.size)] = rng.choice((float("nan"), float("inf"), 1e30))
        found.append(("a bad number", bad))
    return found


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file, or one file of a folder, in place; in words."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    file = rng.choice([p for p in files if p.stat().st_size])
    whole = file.read_bytes()
    if h5py.is_hdf5(file) and rng.random() < 0.4:
        return f"{file.name}: {in_hdf5(file, rng)}"
    text = file.suffix in {".json", ".toml", ".yaml", ".tsv", ".hdr", ".csv"}
    change = rng.choice(TEXT if text and rng.random() < 0.8 else BYTES)
    file.write_bytes(change(whole, rng))
    return f"{file.name}: {change.__name__}"


def copied(path: Path, folder: Path) -> Path:
    """A copy of a file with what lies beside it, or of a folder, in a folder of its own."""
    shutil.copytree(path.parent, folder)
    return folder / path.name
