"""Muon: its orthogonalisation against the singular value decomposition, its steps against AdamW's, and resuming."""

import copy

import pytest
import torch

from medrecon.training.loop.config import LoopConfig
from medrecon.training.loop.muon import Muon, orthogonalised
from medrecon.training.loop.steps import fit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(2, 17, 45), (3, 45, 17), (1, 33, 33)])
def test_orthogonalised_keeps_the_directions_and_evens_out_their_sizes(shape, generator):
    matrices = torch.randn(shape, generator=generator)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    uneven = u @ torch.diag_embed(torch.logspace(-2, 0, s.shape[-1]).expand_as(s)) @ vh
    result = orthogonalised(uneven)
    sizes = torch.linalg.svdvals(result)
    assert 0.5 < float(sizes.min()) and float(sizes.max()) < 1.3  # a hundredfold difference before
    inner = u.mT @ result @ vh.mT
    off = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert float(off.abs().max()) < 0.05


class Net(torch.nn.Module):
    """A convolution with a matrix of 20 x 27, whose bias and gain have no directions to balance."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 20, 3, padding=1)
        self.gain = torch.nn.Parameter(torch.ones(20, 1, 1))

    def forward(self, x):
        return self.gain * self.conv(x)


def regression(module, generator):
    x = torch.randn(4, 3, 6, 6, generator=generator)
    return (module(x) - x.mean(1, keepdim=True)).square().mean()


def stepped(optimizer_type, steps, scale=1.0, channels_last=False):
    """A net after some steps, and one before the last."""
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last) if channels_last else Net()
    optimizer = optimizer_type(net.parameters(), lr=0.01, weight_decay=0.1)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        before = copy.deepcopy(net)
        optimizer.zero_grad()
        (scale * regression(net, g)).backward()
        optimizer.step()
    return net, before


def test_what_is_no_matrix_is_stepped_by_adamw():
    ours, theirs = stepped(Muon, 1)[0], stepped(torch.optim.AdamW, 1)[0]
    for name in ("conv.bias", "gain"):
        torch.testing.assert_close(ours.get_parameter(name), theirs.get_parameter(name), rtol=1e-6, atol=1e-8)
    assert not torch.allclose(ours.conv.weight, theirs.conv.weight, rtol=1e-2)


def test_adamw_over_several_steps():
    p, q = (torch.nn.Parameter(torch.linspace(-1, 1, 15)) for _ in range(2))
    ours, theirs = Muon([p], lr=0.03, weight_decay=0.1), torch.optim.AdamW([q], lr=0.03, weight_decay=0.1)
    for i in range(7):
        for t in (p, q):
            t.grad = (t.detach() - 0.3).pow(3) * (1 + i)
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_the_step_along_a_matrix_has_the_size_of_adamws_whatever_the_gradients():
    for scale in (1.0, 1e4):
        net, before = stepped(Muon, 5, scale)
        step = (net.conv.weight - before.conv.weight * (1 - 0.01 * 0.1)).detach()
        assert float(step.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.25)


def test_channels_last_changes_nothing():
    one, other = stepped(Muon, 4)[0], stepped(Muon, 4, channels_last=True)[0]
    torch.testing.assert_close(one.conv.weight, other.conv.weight.contiguous(), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("stop", [1, 5])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, stop):
    def run(folder, stop=None):
        torch.manual_seed(0)

        def report(done, *_):
            if done == stop:
                raise KeyboardInterrupt

        loop = LoopConfig(steps=8, optimizer="muon", warmup=1, save_seconds=1e-9)
        return fit(Net(), regression, lambda m: {}, loop, folder, report)

    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop)
    again = run(tmp_path / "b")
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_of_the_other_optimiser_is_told(tmp_path):
    fit(Net(), regression, lambda m: {}, LoopConfig(steps=2, warmup=1), tmp_path, lambda *_: None)
    with pytest.raises(ValueError, match="trained by AdamW"):
        fit(Net(), regression, lambda m: {}, LoopConfig(steps=4, optimizer="muon"), tmp_path, lambda *_: None)
