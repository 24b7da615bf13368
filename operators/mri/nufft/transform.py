"""The non-uniform Fourier transform: images to k-space samples at any trajectory, 2D and 3D."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.nufft.gridding import Gridding, kernel_width

if TYPE_CHECKING:
    from medrecon.operators.mri.nufft.toeplitz import Toeplitz

Backend = Literal["auto", "gridding", "finufft"]


class NUFFT(LinearOperator):
    """y[s] = prod(N)^-1/2 sum_r x[r] exp(-2 pi i sum_a k[s, a] (r_a - N_a // 2) / N_a), x (..., *shape) -> y (..., S).

    Integer coordinates give the centred orthonormal FFT; coordinates and scaling are those of `sigpy.nufft`. The
    adjoint is exact to rounding, whatever eps is.

    Args:
        trajectory: (S, d), real, cycles per field of view, |k_a| <= N_a / 2, in the order of the image axes.
        shape: (H, W), or (D, H, W).
        eps: relative error of the transform. complex64 data stop at some 1e-6; complex128 at 1e-13.
        backend: "gridding" (2D: Kaiser-Bessel, compiled loops on the CPU and sparse matrices on a GPU), "finufft" (2D
            and 3D; runs on the CPU), or "auto": gridding in 2D, finufft in 3D.

    Raises:
        ValueError: a trajectory that is not (S, d), empty, NaN, or beyond N / 2.
        ImportError: finufft is needed and not installed.
    """

    in_dtype = out_dtype = torch.complex64

    def __init__(
        self, trajectory: Tensor, shape: tuple[int, ...], *, eps: float = 2e-6, backend: Backend = "auto"
    ) -> None:
        self.trajectory = checked_trajectory(trajectory, shape)
        self.eps = eps
        self.in_shape, self.out_shape = tuple(shape), (len(trajectory),)
        if backend not in get_args(Backend):
            raise ValueError(f"NUFFT: backend is one of {get_args(Backend)}, got {backend!r}")
        if backend == "gridding" and len(shape) != 2:
            raise ValueError("NUFFT: backend 'gridding' is for 2D; use 'finufft', or 'auto'")
        self.backend = backend if backend != "auto" else "gridding" if len(shape) == 2 else "finufft"
        width, oversampling = kernel_width(eps)
        self._engine: Engine = (
            Gridding(self.trajectory, (shape[0], shape[1]), width, oversampling)
            if self.backend == "gridding"
            else Finufft(self.trajectory, self.in_shape, eps)
        )

    def _forward(self, x: Tensor) -> Tensor:
        return self._engine.forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._engine.adjoint(y)

    def _gram(self, x: Tensor) -> Tensor:
        return self.toeplitz._forward(x)

    @functools.cached_property
    def toeplitz(self) -> Toeplitz:
        """A^H A by its point spread function: equal to adjoint(forward) to the accuracy eps."""
        from medrecon.operators.mri.nufft.toeplitz import Toeplitz

        eps = max(min(1e-9, self.eps), 1e-13)
        return Toeplitz(self.trajectory, self.in_shape, eps=eps, backend=self.backend)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        for shape in ((9, 7), (8, 11)):
            yield cls((torch.rand((60, 2), generator=g) - 0.5) * torch.tensor(shape), shape)
        if installed():
            yield cls((torch.rand((90, 3), generator=g) - 0.5) * torch.tensor([3, 5, 4]), (3, 5, 4))


class Engine(Protocol):
    """Transforms of several images at once: (n, *shape) -> (n, S), and its adjoint."""

    def forward(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor) -> Tensor: ...


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
    """Whether finufft can be imported."""
    from importlib.util import find_spec

    return find_spec("finufft") is not None


def checked_trajectory(trajectory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The trajectory as float64 (S, d) on the CPU, |k| <= N / 2; see `NUFFT` for what is refused."""
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
