"""The root of a matrix times a vector against dense algebra."""

import torch

from medrecon.numerics.lanczos import root_times


def test_the_root_of_a_matrix() -> None:
    """Exact after as many products as there are eigenvalues, near before; item by item; more do no harm."""
    g = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=g))[0]
    values = torch.tensor([0.0, 0.01, 1.0, 2.0, 9.0], dtype=torch.float64).repeat(8)
    matrix, root = ((vectors * power) @ vectors.T for power in (values, values.sqrt()))
    v = torch.randn(3, 5, 8, generator=g)
    v[2] = 0.0
    apply = lambda x: (x.flatten(1).double() @ matrix).reshape(x.shape).float()  # noqa: E731
    exact = (v.flatten(1).double() @ root).reshape(v.shape).float()
    error = [float((root_times(apply, v, n) - exact).norm() / exact.norm()) for n in (3, 5, 9)]
    assert 1e-3 < error[0] < 0.2 and max(error[1:]) < 1e-3  # the root of rounding
    torch.testing.assert_close(root_times(apply, v[:1], 3), root_times(apply, v, 3)[:1])
