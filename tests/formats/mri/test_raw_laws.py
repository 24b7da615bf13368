"""The law over raw MRI: whatever freedom of the standard a file uses, the phantom comes back at its value and place.

Files are written by the formats' own libraries of a phantom that is a closed form. The grid has 82 944 combinations for
ISMRMRD and 1728 for twix; a seeded part of it is drawn, so that every value of every freedom comes several times.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import examples
from mri_raw_files import SMALL, TURN, YAPS, acquisition, dat, mrd, rotation, samples
from mri_raw_maker import COILS, Plane, block, header

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats import read_raw

pytestmark = pytest.mark.usefixtures("one_thread")
PLANE = Plane(np.array([12.0, -34.0, 56.0]), blobs=((1.0, 14.0, -9.0), (0.7, -12.0, 20.0)))
LINES = 12
NOISE, CALIBRATION = 19, 20
ISMRMRD: dict[str, tuple[Any, ...]] = {
    "slices": (1, 3, "slab"),
    "counted": (False, True),  # the header's matrix counts the slices
    "oversampling": (1, 2),
    "averages": (1, 2),
    "left_out": (None, "lines", "echo"),
    "order": (1, -1, 0),
    "beside": (False, True),  # a group of noise alone
    "noise": (False, True),
    "calibration": (None, "embedded", "separate", "none"),  # lines of their own, and what the header says of them
    "contrast": (None, 0, 1),  # one, or of two the one that is asked for
    "segments": (False, True),
    "vendor": ("none", "SIEMENS"),
    "first": (0, 5),  # what the lines are counted from
}
TWIX: dict[str, tuple[Any, ...]] = {
    "slices": (1, 3),
    "dimension": (2, 4),
    "averages": (1, 2),
    "left_out": (None, "lines"),
    "order": (1, -1, 0),
    "noise": (None, "own", "other"),
    "contrast": (None, 0, 1),
    "segments": (False, True),
    "adjustment": (False, True),  # a measurement of the scanner's own before it
}


def draw(grid: dict[str, tuple[Any, ...]], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: values[rng.integers(len(values))] for name, values in grid.items()}


def ordered(made: list[Any], order: int, seed: int) -> list[Any]:
    return made[::order] if order else [made[i] for i in np.random.default_rng(seed).permutation(len(made))]


def planes(count: int) -> list[Plane]:
    return [replace(PLANE, centre=PLANE.centre + 7.0 * z * PLANE.axes[2]) for z in range(count)]


def check(scan: Scan, made: dict[str, Any], axes: np.ndarray, sign: float, scale: float) -> None:
    """Every slice has the phantom's k-space where it was measured, and nothing elsewhere, at its place."""
    slab, turn = made["slices"] == "slab", -1 if sign > 0 else 1
    count = 4 if slab else made["slices"]
    image = SMALL.grid(PLANE, sign)
    if made.get("oversampling", 2) == 1:
        k = (np.arange(64) - 32) / SMALL.field_mm[0]
        image = PLANE.signal(k[:, None], SMALL.k(1)[None], sign) * SMALL.scale(64)
    mask = np.ones(image.shape, dtype=bool)
    mask[:, : 3 if made["left_out"] == "lines" else 0] = False
    mask[: 16 if made["left_out"] == "echo" else 0] = False
    truth = scale * COILS[:, None, None] * image
    assert scan.data.shape == (count, 3, *image.shape)
    assert np.array_equal(scan.mask.numpy(), mask)
    for z in range(count):
        wanted = (2 * truth if z == 2 else 0 * truth) if slab else truth  # 4 partitions alike: their middle, unitary
        assert np.abs(scan.data[z].numpy() - wanted * mask).max() < 2e-4 * np.abs(truth).max()
    middle = PLANE.centre if slab else PLANE.centre + 7.0 * (count - 1) * PLANE.axes[2]
    place = scan.affine.numpy() @ [image.shape[1] // 2, image.shape[0] // 2, 2 if slab else count - 1, 1]
    assert np.allclose(place[:3], [-1, -1, 1] * middle, atol=1e-3)
    across = 5.0 * turn if slab else 7.0 if count > 1 else 5.0
    steps = np.stack([turn * 8.0 * axes[1], turn * 2.5 * axes[0], across * axes[2]], axis=1)
    assert np.allclose(scan.affine[:3, :3].numpy(), np.array([-1, -1, 1])[:, None] * steps, atol=1e-4)


def ismrmrd_rows(made: dict[str, Any], sign: float, seed: int) -> list[Any]:
    slab = made["slices"] == "slab"
    protocol = replace(SMALL, field_mm=(160.0, 96.0, 20.0)) if slab else SMALL
    rows = []
    for z, plane in enumerate(planes(1 if slab else made["slices"])):
        for partition, lines in enumerate(samples(plane, protocol, sign, 4 if slab else 1)):
            for s, data in enumerate(lines):
                if made["left_out"] == "lines" and s < 3:
                    continue
                short = data[:, 16:] if made["left_out"] == "echo" else data
                idx: dict[str, Any] = {"slice": z, "step2": partition, "step1": s + made["first"], "centre": 32}
                idx |= {"centre": 16} if made["left_out"] == "echo" else {}
                idx |= {"segment": s % 4, "user0": s % 3} if made["segments"] else {}
                for contrast in (0,) if made["contrast"] is None else (0, 1):
                    bright = 1 + 4 * contrast
                    for average in range(made["averages"]):
                        change = 1.0 if made["averages"] == 1 else (0.5, 1.5)[average]
                        rows.append(
                            acquisition(bright * change * short, plane, average=average, contrast=contrast, **idx)
                        )
                if made["calibration"] and s in (5, 6):
                    rows.append(acquisition(7 * short, plane, flags=[CALIBRATION], **idx))
    rows = ordered(rows, made["order"], seed)
    return (noise_rows() if made["noise"] else []) + rows


def noise_rows() -> list[Any]:
    rng = np.random.default_rng(0)
    white = rng.standard_normal((3, 256)) + 1j * rng.standard_normal((3, 256))
    return [acquisition(white, None, flags=[NOISE], centre=0)]


@pytest.mark.parametrize("part", range(4))
def test_ismrmrd(part: int, tmp_path: Path) -> None:
    pytest.importorskip("ismrmrd")
    for seed in range(part, examples(64), 4):
        made = draw(ISMRMRD, seed)
        if made["left_out"] == "echo":
            made["oversampling"] = 1  # its removal sees zeros beyond the echo's end: not exact, tested elsewhere
        slab, siemens = made["slices"] == "slab", made["vendor"] == "SIEMENS"
        partitions = 4 if slab else made["slices"] if made["counted"] else 1
        over = made["oversampling"]
        thick = 20.0 if slab else 5.0 * partitions
        protocol = replace(
            SMALL, matrix=(64, LINES, partitions), field_mm=(160.0, 96.0, thick), image=(64 // over, LINES, partitions)
        )
        mode = made["calibration"] if made["calibration"] != "none" else None
        xml = header(
            protocol,
            vendor=made["vendor"],
            centre=(6 + made["first"], 2 if slab else 0),
            calibration=mode,
            bandwidth=1.0,
        )
        groups = {"scan": ismrmrd_rows(made, +1 if siemens else -1, seed)}
        groups |= {"adjust": noise_rows()} if made["beside"] else {}
        scan = read_raw(mrd(tmp_path / f"{seed}.h5", groups, xml), RawOptions(contrast=made["contrast"]))
        check(scan, made, PLANE.axes, +1 if siemens else -1, 5.0 if made["contrast"] == 1 else 1.0)
        assert (scan.noise is not None) == made["noise"], made
        if made["noise"]:
            variance = float(scan.noise.covariance.diagonal().real.mean())
            assert variance == pytest.approx(2 / made["averages"], rel=0.2)


@pytest.mark.parametrize("part", range(2))
def test_twix(part: int, tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    axes = rotation()
    for seed in range(part, examples(24), 2):
        made = draw(TWIX, seed)
        rng = np.random.default_rng(seed)
        white = rng.standard_normal((3, 256)) + 1j * rng.standard_normal((3, 256))
        kind = {"centre": 32, "lines": LINES, "place": PLANE.centre, "quaternion": TURN}
        quiet = [block(white, 0, flags=["NOISEADJSCAN"], **kind)]
        blocks = []
        for z in range(made["slices"]):
            data = samples(PLANE, sign=+1)[0]
            at = {**kind, "place": PLANE.centre + 7.0 * z * axes[2], "Sli": z}
            for s in range(3 if made["left_out"] else 0, LINES):
                more = {"Seg": s % 3, "Ida": s % 4} if made["segments"] else {}
                for echo in (0,) if made["contrast"] is None else (0, 1):
                    for average in range(made["averages"]):
                        change = (1 + 4 * echo) * (1.0 if made["averages"] == 1 else (0.5, 1.5)[average])
                        blocks.append(block(change * data[s], s, Eco=echo, Ave=average, **more, **at))
        blocks = ordered(blocks, made["order"], seed)
        measurements = [("gre", quiet + blocks if made["noise"] == "own" else blocks)]
        if made["adjustment"]:
            adjusting = [block(9 * data[s], s, **kind) for s in range(LINES)]
            measurements.insert(0, ("AdjCoilSens", adjusting))
        if made["noise"] == "other":
            measurements.insert(0, ("noise", quiet))
        yaps = YAPS.replace("ucDimension = 2", f"ucDimension = {made['dimension']}")
        scan = read_raw(dat(tmp_path / f"{seed}.dat", measurements, yaps), RawOptions(contrast=made["contrast"]))
        moved = Plane(PLANE.centre, axes)
        check_twix(scan, made, moved)
        assert (scan.noise is not None) == (made["noise"] is not None), made


def check_twix(scan: Scan, made: dict[str, Any], plane: Plane) -> None:
    truth = (5.0 if made["contrast"] == 1 else 1.0) * COILS[:, None, None] * SMALL.grid(PLANE, +1)
    mask = np.ones(truth.shape[1:], dtype=bool)
    mask[:, : 3 if made["left_out"] else 0] = False
    assert np.array_equal(scan.mask.numpy(), mask) and len(scan.data) == made["slices"]
    for z in range(made["slices"]):
        assert np.abs(scan.data[z].numpy() - truth * mask).max() < 2e-4 * np.abs(truth).max()
        place = scan.affine.numpy() @ [6, 16, z, 1]
        assert np.allclose(place[:3], [-1, -1, 1] * (plane.centre + 7.0 * z * plane.axes[2]), atol=1e-3)
    steps = np.stack(
        [-8.0 * plane.axes[1], -2.5 * plane.axes[0], (7.0 if made["slices"] > 1 else 5.0) * plane.axes[2]], 1
    )
    assert np.allclose(scan.affine[:3, :3].numpy(), np.array([-1, -1, 1])[:, None] * steps, atol=1e-4)


def test_the_grid_is_as_large_as_it_says() -> None:
    for grid, seeds in ((ISMRMRD, 64), (TWIX, 24)):
        drawn = [draw(grid, seed) for seed in range(seeds)]
        for name, values in grid.items():
            assert all(sum(d[name] == v for d in drawn) > seeds / len(values) / 3 for v in values), name
    sizes = [int(np.prod([len(v) for v in grid.values()])) for grid in (ISMRMRD, TWIX)]
    assert sizes == [3 * 2 * 2 * 2 * 3 * 3 * 2 * 2 * 4 * 3 * 2 * 2 * 2, 2 * 2 * 2 * 2 * 3 * 3 * 3 * 2 * 2]
