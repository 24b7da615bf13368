"""Draws: who shares noise, on what it depends, and how it goes on."""

import pytest
import torch

from medrecon.diffusion.draw import Antithetic, Draw, Independent, streams


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def makers() -> dict[str, Draw]:
    return {
        "shared": Independent(seeded()),
        "samples": Independent(seeded(), each=3),
        "streams": Independent(*streams(seeded(), 3, 2, (2, 4, 5))),
        "pairs": Antithetic(*streams(seeded(), 2, 2, (2, 4, 5))),
    }


@pytest.mark.parametrize("name", makers())
def test_slices_of_a_trajectory_share_noise_and_trajectories_do_not(name: str) -> None:
    draw = makers()[name]
    n = draw(torch.empty(2 * draw.trajectories, 2, 4, 5)).unflatten(0, (draw.trajectories, 2))
    assert torch.equal(n[:, 0], n[:, 1])
    alone = makers()[name](torch.empty(draw.trajectories, 2, 4, 5))
    assert torch.equal(n[:, 0], alone), "a batch of two must see what one slice sees"
    distinct = {tuple(trajectory.flatten().tolist()) for trajectory in alone}
    assert len(distinct) == draw.trajectories
    with pytest.raises(ValueError, match="trajectories"):
        makers()["pairs"](torch.empty(5, 2, 4, 5))


def test_pairs_are_opposite_and_independent_of_how_many_there_are() -> None:
    like = torch.empty(4, 2, 4, 5)
    n = makers()["pairs"](like)
    assert torch.equal(n[:2], -n[2:]) and not torch.equal(n[0], n[1])
    more = Antithetic(*streams(seeded(), 3, 2, (2, 4, 5)))(torch.empty(6, 2, 4, 5))
    assert torch.equal(more[:2], n[:2])


def test_streams_are_runs_in_a_row() -> None:
    """The k-th stream draws what the k-th run would have drawn."""
    shape, row, found = (1, 3, 5), seeded(), streams(seeded(), 3, 2, (1, 3, 5))
    for stream in found:
        for _ in range(2):
            assert torch.equal(torch.randn((1, *shape), generator=row), torch.randn((1, *shape), generator=stream))


def test_noise_is_standard_normal_in_any_item_shape() -> None:
    for shape in ((1, 50, 60), (2, 10, 20, 15)):  # a slice and a volume
        n = Independent(seeded(), each=4)(torch.empty(4, *shape, dtype=torch.float64))
        assert n.dtype == torch.float64 and n.shape == (4, *shape)
        assert abs(float(n.mean())) < 0.05 and float(n.std()) == pytest.approx(1, abs=0.03)
        assert abs(float((n[0] * n[1]).mean())) < 0.06


@pytest.mark.parametrize("name", makers())
def test_a_draw_goes_on_from_its_state(name: str) -> None:
    draw, like = makers()[name], torch.empty(12, 2, 4, 5)
    draw(like)
    state = draw.state()
    first = draw(like)
    assert not torch.equal(draw(like), first)
    draw.restore(state)
    assert torch.equal(draw(like), first)
