"""Processes as changes of variables: moments of the states, the way there and back, and refused nonsense."""

import pytest
import torch

from medrecon.diffusion.process import Process
from medrecon.diffusion.schedules import flow_uniform
from medrecon.models.adapters.discrete_vp import linear_beta_abar
from medrecon.models.exact.gaussian import smooth_gaussian

TIMES = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
PROCESSES = {
    "ve": Process.variance_exploding(torch.logspace(-2, 2, 7, dtype=torch.float64)),
    "vp": Process.variance_preserving(linear_beta_abar()[::150]),
    "flow": Process.rectified_flow(TIMES),
    "mean-reverting": Process((-TIMES).exp(), 1 - (-TIMES).exp(), 0.3 * (1 - (-2 * TIMES).exp()).sqrt()),
    "residual": Process(1 - TIMES, TIMES, 2 * TIMES.sqrt()),
}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_a_state_is_its_latent_in_other_variables(process: Process, generator: torch.Generator) -> None:
    """x_t = a x0 + b mu + s n, which is z = x0 + sigma n once mu is taken off; and the way back."""
    x0, mu, n = torch.randn(3, 2, 1, 4, 5, dtype=torch.float64, generator=generator)
    for t in range(len(process.a)):
        x = process.state(x0, n, t, mu)
        torch.testing.assert_close(x, process.a[t] * x0 + process.b[t] * mu + process.s[t] * n)
        z = process.to_engine(x, t, mu)
        torch.testing.assert_close(z, x0 + process.sigma[t] * n)
        torch.testing.assert_close(process.from_engine(z, t, mu), x)
        if float(process.b[t]):  # the control: without mu it is another latent
            assert not torch.allclose(process.to_engine(x, t), z, atol=1e-3)


def test_named_processes_have_their_variances() -> None:
    vp, flow = PROCESSES["vp"], PROCESSES["flow"]
    torch.testing.assert_close(vp.a.square() + vp.s.square(), torch.ones_like(vp.a))
    torch.testing.assert_close(flow.a + flow.s, torch.ones_like(flow.a))
    torch.testing.assert_close(flow.sigma, TIMES / (1 - TIMES))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_denoiser_of_the_engine_is_the_posterior_mean_of_the_process(process: Process) -> None:
    """E[x0 | x_t] by conditioning the joint Gaussian of (x0, x_t) is D(z, sigma)."""
    prior = smooth_gaussian((1, 2, 3))
    x, mu = torch.randn(2, 1, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(6, dtype=torch.float64)
    for t in (0, len(process.a) // 2, len(process.a) - 1):
        a, b, s = process.a[t], process.b[t], process.s[t]
        gain = torch.linalg.solve(a**2 * prior.covariance + s**2 * eye, a * prior.covariance).T
        expected = prior.mean + gain @ (x.flatten() - a * prior.mean - b * mu.flatten())
        found = prior(process.to_engine(x, t, mu), process.sigma[t])
        torch.testing.assert_close(found.flatten(), expected)


def test_nonsense_is_refused() -> None:
    ones, zeros = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="float64"):
        Process(ones.float(), zeros, ones)
    with pytest.raises(ValueError, match="one length"):
        Process(ones, zeros[:2], ones)
    with pytest.raises(ValueError, match="rising"):
        Process(ones, zeros, ones)
    with pytest.raises(ValueError, match="a > 0"):
        Process.rectified_flow(torch.tensor([0.5, 1.0], dtype=torch.float64))


def test_levels_even_in_the_time_of_rectified_flow() -> None:
    """Those of its process: Euler along the velocity from one to the next is DDIM's step."""
    sigmas = flow_uniform(5, 0.25, 4.0)
    times = torch.linspace(0.8, 0.2, 5, dtype=torch.float64)
    torch.testing.assert_close(sigmas[:-1].flip(0), Process.rectified_flow(times.flip(0)).sigma)
    z, clean = torch.tensor(1.7, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    x = (1 - times[1]) * z
    euler = x + (times[2] - times[1]) * (x - clean) / times[1]
    ddim = clean + sigmas[2] / sigmas[1] * (z - clean)
    torch.testing.assert_close(euler, (1 - times[2]) * ddim)
    with pytest.raises(ValueError, match="0 < low <= high"):
        flow_uniform(5, 4.0, 0.25)
