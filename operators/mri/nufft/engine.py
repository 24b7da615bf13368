"""Engines of the non-uniform Fourier transform: our own gridding in 2D, FINUFFT in 2D and 3D."""

from __future__ import annotations

import math
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from medrecon.numerics.threads import check_not_recorded
from medrecon.operators.mri.nufft.gridding import Gridding, kernel_width

Backend = Literal["auto", "gridding", "finufft"]


class Engine(Protocol):
    """Transforms of several images at once: (n, *shape) -> (n, S), and its adjoint."""

    def forward(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor) -> Tensor: ...


def engine(trajectory: Tensor, shape: tuple[int, ...], eps: float, backend: Backend) -> Engine:
    """Return the engine for a checked trajectory (S, d); `NUFFT` says what it computes and what is refused."""
    if backend not in get_args(Backend):
        raise ValueError(f"NUFFT: backend is one of {get_args(Backend)}, got {backend!r}")
    if backend == "gridding" and len(shape) != 2:
        raise ValueError("NUFFT: backend 'gridding' is for 2D; use 'finufft', or 'auto'")
    width, oversampling = kernel_width(eps)
    if chosen(backend, shape) == "finufft":
        return Finufft(trajectory, shape, eps)
    return Gridding(trajectory, (shape[0], shape[1]), width, oversampling)


def chosen(backend: Backend, shape: tuple[int, ...]) -> Backend:
    """Return the backend that serves images of this shape."""
    return backend if backend != "auto" else "gridding" if len(shape) == 2 else "finufft"


class Finufft:
    """The transform by FINUFFT (Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput. 41 (2019) C479), on the CPU.

    Its threads add in the order in which they finish: two runs may differ in the last bits of float64.
    """

    def __init__(self, trajectory: Tensor, shape: tuple[int, ...], eps: float) -> None:
        if not installed():
            raise ImportError("NUFFT: this needs the package finufft: pip install 'medrecon[mri]'")
        self.shape, self.eps = shape, eps
        self._angles = [(2 * math.pi / n * k).contiguous() for k, n in zip(trajectory.T, shape, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        return self._run(2, -1, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._run(1, 1, y)

    def _run(self, kind: int, sign: int, data: Tensor) -> Tensor:
        import finufft

        check_not_recorded()
        # Angles of single precision limit it to some 1e-5 at 320 pixels.
        wide = torch.complex64 if data.dtype == torch.complex64 and self.eps >= 1e-4 else torch.complex128
        host = data.detach().to("cpu", wide).contiguous()
        # Left to itself it may oversample the two directions differently: the adjoint is then good to eps / 100 only.
        plan = finufft.Plan(
            kind, self.shape, len(host), self.eps, sign, upsampfac=2.0, dtype=str(host.dtype).removeprefix("torch.")
        )
        plan.setpts(*(angle.to(host.real.dtype).numpy() for angle in self._angles))
        shape = (len(host), len(self._angles[0])) if kind == 2 else (len(host), *self.shape)
        out = torch.from_numpy(plan.execute(host.numpy())).view(shape)
        return (out / math.sqrt(math.prod(self.shape))).to(data.device, data.dtype)


def installed() -> bool:
    """Tell whether finufft can be imported."""
    from importlib.util import find_spec

    return find_spec("finufft") is not None


def checked_trajectory(trajectory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the trajectory as float64 (S, d) on the CPU, |k| <= N / 2; see `NUFFT` for what is refused."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"NUFFT: the image is (H, W) or (D, H, W), got {tuple(shape)}")
    if trajectory.is_complex() or trajectory.ndim != 2 or trajectory.shape[-1] != len(shape) or not len(trajectory):
        raise ValueError(
            f"NUFFT: the trajectory is real (S, {len(shape)}) in cycles per field of view for an image {tuple(shape)}, "
            f"got {trajectory.dtype} {tuple(trajectory.shape)}; spokes are one after the other: flatten(0, -2)"
        )
    k = trajectory.detach().to("cpu", torch.float64)
    finite = torch.isfinite(k).all(-1)
    if not bool(finite.all()):
        raise ValueError(f"NUFFT: the trajectory is NaN or infinite at sample {int((~finite).nonzero()[0])}")
    limit = torch.tensor(shape, dtype=torch.float64) / 2
    beyond = (k.abs() > limit * (1 + 1e-6)).any(-1)
    if bool(beyond.any()):
        first = int(beyond.nonzero()[0])
        raise ValueError(
            f"NUFFT: {int(beyond.sum())} samples lie beyond N / 2 = {limit.tolist()} cycles per field of view, the "
            f"first is sample {first} at {k[first].tolist()}; rescale the trajectory, enlarge the image or drop them"
        )
    return k.contiguous()
