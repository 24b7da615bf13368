"""JSENSE: coil maps and image estimated together from undersampled k-space (Ying 2007), by SigPy."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.coils.combine import relative_to_first


def jsense_maps(
    kspace: Tensor, *, width: int = 24, kernel: int = 12, weight: float = 0.01, iterations: int = 10, inner: int = 10
) -> Tensor:
    """Estimate coil sensitivity maps from the centre of k-space, undersampled or not: needs less than ESPIRiT.

    Alternates conjugate gradients over the image and over maps with few Fourier coefficients. CPU; SigPy's
    `JsenseRecon`. The problem is not convex: where an ACS exists, ESPIRiT is safer and knows the support.

    Args:
        kspace: (C, H, W) or (Z, C, H, W), 0 where not acquired.
        width: side of the central square used.
        kernel: Fourier coefficients of a map along each axis.
        weight: Tikhonov weight of both, for k-space of norm 1. With SigPy's 0 undersampled data diverge.
        iterations, inner: alternations, and conjugate gradient steps in each.

    Returns:
        Maps shaped like kspace, complex64, sum over coils |S|^2 = 1 everywhere; phase relative to coil 0.

    Raises:
        ValueError: a wrong shape, NaN, no samples in the square, or a diverged estimate.
    """
    if kspace.ndim == 4:
        options = {"width": width, "kernel": kernel, "iterations": iterations, "inner": inner}
        return torch.stack([jsense_maps(k, weight=weight, **options) for k in kspace])
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(
            f"jsense_maps: k-space is complex (C, H, W) or (Z, C, H, W), got {kspace.dtype} {[*kspace.shape]}"
        )
    if not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise ValueError("jsense_maps: k-space has NaN or infinite samples; set samples that were not acquired to 0")
    import sigpy
    import sigpy.mri.app

    samples = kspace.detach().resolve_conj().to("cpu", torch.complex64).numpy().copy()
    if not sigpy.resize(samples, [len(samples), width, width]).any():
        raise ValueError(f"jsense_maps: no samples in the central {width} x {width} of k-space; acquire its centre")
    found = sigpy.mri.app.JsenseRecon(
        samples,
        mps_ker_width=kernel,
        ksp_calib_width=width,
        lamda=weight,
        max_iter=iterations,
        max_inner_iter=inner,
        show_pbar=False,
    ).run()
    maps = torch.from_numpy(found).to(kspace.device, torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise ValueError("jsense_maps: the estimate diverged; lower kernel or iterations, or raise weight")
    return relative_to_first(maps)
