"""Finds the blobs of a scan's images in the room."""

import numpy as np
import torch

from medrecon.core.scan import Scan


def images(scan: Scan) -> torch.Tensor:
    """(Z, H, W) magnitude over the coils."""
    k = torch.fft.ifftshift(scan.data, (-2, -1))
    return torch.fft.fftshift(torch.fft.ifft2(k, norm="ortho"), (-2, -1)).abs().square().sum(1).sqrt()


def places(scan: Scan, image: torch.Tensor, z: int, count: int = 3) -> np.ndarray:
    """(count, 3) [mm, RAS]: centroids of the brightest blobs of a slice, brightest first."""
    left, found = image.double().clone(), []
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in image.shape)
    for _ in range(count):
        i, j = divmod(int(left.argmax()), image.shape[1])
        near = ((rows[:, None] - i).abs() <= 4) & ((columns - j).abs() <= 4)
        weight = (left * near).square()
        total = float(weight.sum())
        row, column = float((weight.sum(1) * rows).sum()) / total, float((weight.sum(0) * columns).sum()) / total
        found.append((scan.affine.numpy() @ [column, row, z, 1])[:3])
        left[near] = 0
    return np.array(found)
