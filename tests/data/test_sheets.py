"""PNG sheets: bombs, damage and tables that do not fit them are refused by name, before memory is taken."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_folders import manifest
from PIL import Image

from medrecon.data import sheets
from medrecon.data.cases import inventory
from medrecon.training.images.slices import read_sheets

PIXELS = np.random.default_rng(0).integers(0, 4000, (4, 16, 16)).astype(np.uint16)


def png(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    Image.fromarray(pixels.reshape(-1, pixels.shape[-1])).save(path)
    return path


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb(path: Path, width: int, height: int, body: bytes = b"") -> Path:
    """A sheet of zeros, 16 bits, which claims to be that large."""
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


def test_sheets_come_back(tmp_path: Path) -> None:
    assert np.array_equal(sheets.frames(png(tmp_path / "s.png")), PIXELS)


@pytest.mark.parametrize("claimed", [(2**15, 2**15 * 30), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)])
def test_bombs_take_no_memory(claimed: tuple[int, int], tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb.png", *claimed, zlib.compress(bytes(1 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.png: damaged, or not a PNG sheet .*justifies"):
        sheets.frames(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """PNG has a checksum a chunk. Reading with PIL alone looks at few of them."""
    whole = png(tmp_path / "s.png").read_bytes()
    for bit in range(0, 8 * len(whole), 61):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad.png").write_bytes(raw)
        with pytest.raises(ValueError, match=r"bad\.png: "):
            sheets.frames(tmp_path / "bad.png")


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    for name, pixels, message in (
        ("rgb.png", np.zeros((16, 16, 3), np.uint8), "expected whole grey values, got mode RGB"),
        ("bits.png", np.zeros((16, 16), bool), "expected whole grey values, got mode 1"),
        ("tall.png", np.zeros((20, 16), np.uint8), "height 20 is not a multiple of width 16"),
        ("wraps.png", np.full((16, 16), 40000, np.uint16), "values up to 40000; sheets hold 16 bits with a sign"),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        with pytest.raises(ValueError, match=message) as error:
            sheets.frames(tmp_path / name)
        assert name in str(error.value)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "other.png", format="TIFF")
    with pytest.raises(ValueError, match=r"other\.png: damaged, or not a PNG sheet"):
        sheets.frames(tmp_path / "other.png")
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such sheet"):
        sheets.frames(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("s.png\t0\tx\n", "line 2: no 'subject'"),
        ("s.png\tzero\tx\ta\n", "line 2: frame is 'zero'"),
        ("../s.png\t0\tx\ta\n", "line 2: '../s.png' lies outside the folder"),
    ],
)
def test_bad_tables_are_named_by_both_readers(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    png(tmp_path / "train" / "s.png")
    (tmp_path / "train" / "index.tsv").write_text("sheet\tframe\tsource\tsubject\n" + rows)
    m = manifest(tmp_path, "kind = 'sheets'\ntrain = 'train'\nsubject = 'index.tsv'\n")
    for read in (lambda: inventory(m), lambda: read_sheets(tmp_path / "train", 1.0, 0.0)):
        with pytest.raises(ValueError, match=message) as error:
            read()
        assert "index.tsv" in str(error.value)
