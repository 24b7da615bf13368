"""A simulation that is killed goes on with the parts it has kept, and ends in the same bytes."""

import os
from pathlib import Path

import pytest
import torch

from medrecon import formats
from medrecon.cli import main
from medrecon.core.volume import Volume
from medrecon.runs import Kept, Memo

KINDS = {
    "fan": ["--modality", "ct", "--views", "12", "--size", "16", "--tube-current", "attenuation"],
    "cone": ["--modality", "ct", "--views", "12", "--geometry", "cone", "--size", "16"],
    "grid": ["--modality", "mri", "--accel", "2", "--acs", "12"],
    "spokes": ["--modality", "mri", "--trajectory", "golden", "--readouts", "24"],
}


@pytest.fixture(params=KINDS)
def command(request, tmp_path, generator):
    kind = request.param
    ct = KINDS[kind][1] == "ct"
    affine = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64))
    data = 100 * torch.rand(20, 32, 32, generator=generator)
    if ct:
        data = data * 12 - 1000
    (tmp_path / "in").mkdir()
    formats.write(Volume(data, affine, *(("HU", "CT") if ct else ("a.u.", "MR"))), tmp_path / "in" / "v.nii")

    def made(name: str, *more: str) -> list[str]:
        return ["simulate", str(tmp_path / "in" / "v.nii"), "-o", str(tmp_path / name), *KINDS[kind], "--quiet", *more]

    return made


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Interrupt the simulation once it has kept some parts; the names of those that were made."""
    names, call = [], Memo.__call__

    def counted(memo, name, make):
        def made():
            if len(names) == count:
                raise KeyboardInterrupt
            names.append(name)
            return make()

        return call(memo, name, made)

    monkeypatch.setattr(Memo, "__call__", counted)
    return names


def test_a_killed_simulation_goes_on(command, tmp_path: Path, monkeypatch, capsys) -> None:
    assert main(command("alone.h5")) == 0
    with monkeypatch.context() as patched:
        stopped = stop_after(patched, 1)
        code = main(command("x.h5"))
    if code == 130:  # a cone beam has one part, and ends
        assert (tmp_path / "x.h5.slices").is_dir() and not (tmp_path / "x.h5").exists()
        assert main(command("x.h5", "--seed", "5")) == 1
        assert "seed was 0 and is 5" in capsys.readouterr().err
        with monkeypatch.context() as patched:
            again = stop_after(patched, 99)
            assert main(command("x.h5")) == 0
        assert stopped[0] not in again and "x.h5.slices: 1" in capsys.readouterr().err
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["alone.h5", "in", "x.h5"]


def test_parts_are_dropped_where_it_begins_anew(command, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        main(command("x.h5"))
    (tmp_path / "x.h5").unlink(missing_ok=True)
    assert main(command("x.h5", "--seed", "5", "--no-resume")) == 0
    assert main(command("y.h5", "--seed", "5")) == 0
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_a_failure_before_the_first_part_leaves_nothing(command, tmp_path: Path, monkeypatch) -> None:
    stop_after(monkeypatch, 0)
    assert main(command("x.h5")) == 130
    assert os.listdir(tmp_path) == ["in"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    memo = Memo(Kept(tmp_path / "k", {}))
    made = memo("a", lambda: {"x": torch.arange(3.0), "n": torch.tensor([1 + 2j])})
    kept = memo("a", lambda: pytest.fail("it is kept"))
    assert all(torch.equal(made[name], kept[name]) for name in ("x", "n")) and memo.count == 1
    path = tmp_path / "k" / "a.part"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"a\.part: damaged \(its values have changed\); remove it"):
        memo("a", dict)
