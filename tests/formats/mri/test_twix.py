"""Siemens twix: files written by twixtools of a known phantom; the real phantom scans against another reader."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import images, places
from mri_raw_files import TURN, rotation
from mri_raw_maker import AXES, COILS, Plane, Protocol, block, twix

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.formats.ismrmrd.write import write_ismrmrd
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import Cartesian
from medrecon.pipeline import reconstruct

pytest.importorskip("twixtools")
pytestmark = pytest.mark.usefixtures("one_thread")
P = Protocol()
YAPS = """sKSpace.lBaseResolution = 48
sKSpace.lPhaseEncodingLines = 40
sKSpace.lPartitions = 1
sKSpace.ucDimension = 2
sKSpace.ucTrajectory = 1
sSliceArray.asSlice[0].dThickness = 5.0
sSliceArray.asSlice[0].dPhaseFOV = 120.0
sSliceArray.asSlice[0].dReadoutFOV = 120.0
sRXSPEC.alDwellTime[0] = 5000"""


PLANE = Plane(np.array([12.0, -34.0, 56.0]), rotation())


def blocks(plane: Plane = PLANE, ve: bool = True, **counters: int) -> list[Any]:
    """A slice as Siemens scanners measure it: their signal turns the other way."""
    return [
        block(
            COILS[:, None] * plane.signal(P.k(0), k, sign=+1) * P.scale(96),
            s,
            centre=48,
            lines=40,
            place=plane.centre,
            quaternion=TURN,
            flags=["ONLINE"],
            ve=ve,
            **counters,
        )
        for s, k in enumerate(P.k(1))
    ]


@pytest.mark.parametrize("ve", [True, False], ids=["VE", "VB"])
def test_a_phantom_lies_where_it_was(ve: bool, tmp_path: Path) -> None:
    below = Plane(PLANE.centre - 6 * PLANE.axes[2], PLANE.axes, ((1.0, -20.0, 10.0),))
    scan = read_raw(twix(tmp_path / "scan.dat", blocks(ve=ve, Sli=0) + blocks(below, ve=ve, Sli=1), YAPS))
    assert scan.data.shape == (2, 3, 48, 40) and scan.provenance["format"] == "twix" and scan.noise is None
    assert np.allclose(places(scan, images(scan)[1], 1), [PLANE.room(b) for b in range(3)], atol=0.02)
    assert np.allclose(places(scan, images(scan)[0], 0, 1), [below.room(0)], atol=0.02)
    truth = COILS[:, None, None] * P.grid(PLANE, +1)
    assert np.abs(scan.data[1].numpy() - truth).max() < 1e-5 * np.abs(truth).max()


def test_noise_of_an_earlier_measurement_and_averages(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    deviation = np.array([2.0, 1.0, 0.5])[:, None]

    def sample(count: int) -> np.ndarray:
        return deviation * (rng.standard_normal((3, count)) + 1j * rng.standard_normal((3, count))) / np.sqrt(2)

    kind = {"centre": 48, "lines": 40, "place": PLANE.centre, "quaternion": TURN}
    noise = [block(sample(256), 0, flags=["NOISEADJSCAN"], **kind) for _ in range(20)]
    made = [block(sample(96), s, Ave=a, **kind) for a in range(2) for s in range(40)]
    scan = read_raw(twix(tmp_path / "noise.dat", made, YAPS, earlier=noise))
    assert scan.provenance["measurements"] == 2 and scan.provenance["averages"]["usual"] == 2
    expected = np.array([4.0, 1.0, 0.25]) / 2 * (30.0 / 5.0) / 0.79  # dwell times 300 * 256 / 256 / 10, 5 us
    assert "dwell time ratio 6," in scan.provenance["noise"]  # (int(76800 / 256) / 10 us)
    assert np.allclose(scan.noise.covariance.diagonal().real.numpy(), expected, rtol=0.06)


def test_reflected_lines_and_navigators(tmp_path: Path) -> None:
    """An EPI: every other line backwards and turned by 0.6 rad."""
    kind = {"centre": 48, "lines": 40, "place": PLANE.centre, "quaternion": TURN}
    made = []
    for n, step in enumerate([20, 20, 20, *range(40)]):
        back = n % 2 == 0
        k = P.k(0)
        samples = PLANE.signal(k, 0.0 if n < 3 else P.k(1)[step], +1) * P.scale(96) * np.exp(0.6j * back)
        flags = ["REFLECT"] * back + ["PHASCOR", "RTFEEDBACK"] * (n < 3)
        made.append(block(COILS[:, None] * (samples[::-1] if back else samples), step, flags=flags, **kind))
    scan = read_raw(twix(tmp_path / "epi.dat", made, YAPS))
    assert scan.provenance["ghost_correction"]["0"]["offset_rad"] == pytest.approx(0.6, abs=1e-3)
    truth = COILS[:, None, None] * P.grid(PLANE, +1) * np.exp(0.3j)  # half of it stays with every line
    assert np.abs(scan.data[0].numpy() - truth).max() < 3e-3 * np.abs(truth).max()


def unknown(raw: bytes) -> bytes:
    return struct.pack("<II", 7, 4711) + raw[8:]


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) * 2 // 3]


def cut_header(raw: bytes) -> bytes:
    return raw[:10300]


def spiral(raw: bytes) -> bytes:
    return raw.replace(b"ucTrajectory = 1", b"ucTrajectory = 4")


def headless(raw: bytes) -> bytes:
    return raw.replace(b"lBaseResolution", b"lGaseResolution")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unknown, r"not a twix file of a version that is known \(VB, VD, VE\)"),
        (cut, "truncated"),
        (cut_header, "truncated or damaged"),
        (spiral, "not Cartesian"),
        (headless, "the header lacks 'lBaseResolution'"),
    ],
)
def test_bad_files_are_named(spoil: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    raw = twix(tmp_path / "good.dat", blocks(), YAPS).read_bytes()
    (tmp_path / "bad.dat").write_bytes(spoil(raw))
    with pytest.raises(ValueError, match="bad.dat: .*" + message):
        read_raw(tmp_path / "bad.dat")


def test_bad_readouts_are_named(tmp_path: Path) -> None:
    made = blocks()
    made[6].data = np.where(np.arange(96) == 5, np.nan, made[6].data)
    with pytest.raises(ValueError, match=r"nan.dat: readout 6: NaN or infinite samples"):
        read_raw(twix(tmp_path / "nan.dat", made, YAPS))
    made = blocks()
    made[3].data = made[3].data[:2]
    with pytest.raises(ValueError, match=r"coils.dat: readout 3: 2 coils, readout 0 has 3"):
        read_raw(twix(tmp_path / "coils.dat", made, YAPS))
    with pytest.raises(OptionError, match=r"echo.dat: contrast 1: the file has 0"):
        read_raw(twix(tmp_path / "echo.dat", blocks(), YAPS), RawOptions(contrast=1))


@pytest.fixture
def folder(corpus: Path) -> Path:
    path = corpus / "raw" / "raw_mri_twix"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_a_real_scan_has_the_lines_of_another_reader(folder: Path) -> None:
    """Phantom, GRE: k-space against pymapvbvd, oversampling removed; place and size against the header's text."""
    mapvbvd = pytest.importorskip("mapvbvd")
    scan = read_raw(folder / "gre.dat")
    assert scan.data.shape == (1, 2, 160, 160) and bool(scan.mask.all()) and scan.geometry == Cartesian()
    other = mapvbvd.mapVBVD(str(folder / "gre.dat"), quiet=True)
    other.image.squeeze, other.image.flagRemoveOS = True, False
    raw = np.asarray(other.image[""]).transpose(1, 0, 2)  # (C, 320, 160)
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(raw, 1), axis=1, norm="ortho"), 1)[:, 80:240]
    expected = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, 1), axis=1, norm="ortho"), 1)
    assert np.abs(scan.data[0].numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    place = other.hdr["MeasYaps"]
    centre = [float(place["sSliceArray", "asSlice", "0", "sPosition", d]) for d in ("dSag", "dCor", "dTra")]
    found = (scan.affine.numpy() @ [80, 80, 0, 1])[:3]
    assert np.allclose(found, np.array([-1, -1, 1]) * centre, atol=1e-4)
    normal = [float(place["sSliceArray", "asSlice", "0", "sNormal", d]) for d in ("dSag", "dCor", "dTra")]
    assert np.allclose(scan.affine[:3, 2].numpy() / 4, np.array([-1, -1, 1]) * normal, atol=1e-5)
    assert torch.allclose(torch.linalg.vector_norm(scan.affine[:3, :3], dim=0), torch.tensor([1.25, 1.25, 4]).double())


def test_a_real_epi_has_less_of_a_ghost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ghost beside the object, relative to it; the GRE of the same slice says where the object is."""
    gre, epi = (read_raw(folder / name) for name in ("gre.dat", "epi.dat"))
    small = torch.nn.functional.avg_pool2d(images(gre)[None], 2)[0, 0]
    inside = small > 0.3 * small.max()
    near = torch.nn.functional.max_pool2d(inside[None].float(), 7, 1, 3)[0] > 0
    outside = inside.roll(40, 1) & ~near

    def ghost(scan: Any) -> float:
        image = images(scan)[0]
        return float(image[outside].mean() / image[inside].mean())

    corrected = ghost(epi)
    monkeypatch.setattr("medrecon.acquisition.kspace.readout_lines.correct_ghost", lambda lines, backward, phase: lines)
    uncorrected = ghost(read_raw(folder / "epi.dat"))
    assert corrected < 0.11 and uncorrected > 1.5 * corrected
    monkeypatch.setattr("medrecon.formats.twix.header._ramp", lambda meas: None)
    assert ghost(read_raw(folder / "epi.dat")) > 1.5 * corrected  # without regridding the ramps


def test_a_real_scan_goes_through_ismrmrd_and_is_reconstructed(folder: Path, tmp_path: Path) -> None:
    scan = read_raw(folder / "gre.dat")
    again = read_raw(write_ismrmrd(scan, tmp_path / "gre.h5"))
    assert torch.equal(again.data, scan.data) and torch.allclose(again.affine, scan.affine, atol=1e-4)
    volume, _ = reconstruct(again, "zero-filled")
    assert volume.data.shape == (1, 160, 160) and torch.allclose(volume.affine, again.affine)


def test_directions_are_a_rotation() -> None:
    assert np.allclose(rotation() @ rotation().T, np.eye(3)) and not np.allclose(rotation(), AXES)
