"""Value maps far from the values they were made for."""

import pytest
import torch

from medrecon.models.values import Asinh, Linear


def test_asinh_stays_finite_wherever_a_network_leads() -> None:
    """Beyond |u| = 2, hundreds of times the densest bone, values and slope stay those at 2."""
    u = torch.tensor([-1e4, -2.0, 2.0, 1e4], dtype=torch.float64)
    for f in (Asinh().inverse, Asinh().derivative):
        low, least, most, high = f(u).tolist()
        assert low == least and high == most
    assert Asinh(center=0.0).derivative(u[2]) == pytest.approx(600 * torch.cosh(torch.tensor(6.0)).item(), rel=1e-6)


def test_fixed_points_of_the_maps() -> None:
    """Asinh: the centre is 0, a knee above it asinh(1) / gain, what lies outside is clipped. Linear: -1 to 1 and on."""
    x = torch.tensor([-5000.0, -1024.0, 30.0, 230.0, 9000.0], dtype=torch.float64)
    u = Asinh().forward(x)
    assert u[0] == u[1] and u[2] == 0 and u[3].item() == pytest.approx(0.8813735870195430 / 3)
    assert u[4] == Asinh().forward(torch.tensor(3071.0, dtype=torch.float64))
    torch.testing.assert_close(Asinh().inverse(u[1:4]), x[1:4])
    line = Linear(-2.0, 6.0)
    y = torch.tensor([-2.0, 2.0, 6.0, 10.0])
    torch.testing.assert_close(line.forward(y), torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    torch.testing.assert_close(line.inverse(line.forward(y)), y)
