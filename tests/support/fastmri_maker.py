"""fastMRI files of a phantom, written with h5py and NumPy alone: an independent statement of the format."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex64]
HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <subjectInformation><patientID>{patient}</patientID></subjectInformation>
  <acquisitionSystemInformation><receiverChannels>4</receiverChannels></acquisitionSystemInformation>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{fov_x}</x><y>{fov_y}</y><z>4.5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{kept_rows}</x><y>{kept_columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{recon_x}</x><y>{recon_y}</y><z>4.5</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
      </kspace_encoding_step_1>
    </encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>
"""
PIXEL = (0.9, 1.25)
"""Row and column step [mm]."""


def fft(image: NDArray[Any]) -> Complex:
    axes = (-2, -1)
    k = np.fft.fft2(np.fft.ifftshift(image, axes), norm="ortho")
    return np.fft.fftshift(k, axes).astype(np.complex64)


def ifft(kspace: NDArray[Any]) -> NDArray[Any]:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)


def header(shape: tuple[int, int], kept: tuple[int, int], padding: int, **other: Any) -> str:
    """`padding` columns of zeros on the left and on the right."""
    values = {
        "rows": shape[0],
        "columns": shape[1],
        "fov_x": shape[0] * PIXEL[0],
        "fov_y": shape[1] * PIXEL[1],
        "kept_rows": kept[0],
        "kept_columns": kept[1],
        "recon_x": kept[0] * PIXEL[0],
        "recon_y": kept[1] * PIXEL[1],
        "last": shape[1] - 2 * padding - 1,
        "centre": shape[1] // 2 - padding,
        "patient": "SECRET^NAME",
    }
    return HEADER.format(**{**values, **other})


def kspace(
    slices: int, coils: int, shape: tuple[int, int], padding: int = 0, noise: float = 1e-3, seed: int = 0
) -> Complex:
    """(slices, coils, H, W): an ellipse in the middle with one bright mark above and to the left of its centre."""
    rng = np.random.default_rng(seed)
    y, x = ((np.arange(n) - n // 2) / n for n in shape)
    y, x = y[:, None], x[None]
    image = 1.0 * ((y / 0.22) ** 2 + (x / 0.3) ** 2 < 1)
    image[(np.abs(y + 0.1) < 0.03) & (np.abs(x + 0.15) < 0.05)] = 3
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(-2 * ((y - 0.6 * np.sin(a)) ** 2 + (x - 0.6 * np.cos(a)) ** 2) + 1j * a) for a in angles])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    stack = np.stack([(1 + 0.2 * k) * fft(maps * image) for k in range(slices)])
    stack = stack + noise * (rng.standard_normal(stack.shape) + 1j * rng.standard_normal(stack.shape)) / np.sqrt(2)
    stack[..., :padding] = stack[..., shape[1] - padding :] = 0
    return stack.astype(np.complex64)


def rss(stack: Complex, kept: tuple[int, int]) -> NDArray[np.float32]:
    """The public definition of the target: root sum of squares of the whole image, cropped from (n - m) // 2."""
    image = np.sqrt((np.abs(ifft(stack)) ** 2).sum(-3))
    (top, h), (left, w) = (((n - m) // 2, m) for n, m in zip(stack.shape[-2:], kept, strict=True))
    return image[..., top : top + h, left : left + w].astype(np.float32)


def write(
    path: Path,
    stack: Complex,
    kept: tuple[int, int],
    *,
    padding: int = 0,
    mask: NDArray[Any] | None = None,
    targets: tuple[str, ...] = ("reconstruction_rss",),
    **other: Any,
) -> Path:
    """A file as NYU publishes them; single coil when `stack` is (slices, H, W)."""
    coils = stack if stack.ndim == 4 else stack[:, None]
    with h5py.File(path, "w") as h5:
        h5["kspace"] = stack
        h5["ismrmrd_header"] = header(stack.shape[-2:], kept, padding, **other).encode()
        if mask is not None:
            h5["mask"] = mask
        for name in targets:
            h5[name] = rss(coils, kept)
        h5.attrs.update(acquisition="AXT2", max=1.25, norm=3.5, patient_id="0123456789abcdef")
    return path
