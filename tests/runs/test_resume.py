"""A run that is killed, parted or spread ends in the same bytes as one that was left alone, and leaves nothing over."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import pytest
import torch

import medrecon.pipeline.run as pipeline_run
from medrecon.cli import main
from medrecon.core.atomic import claimed
from medrecon.core.lock import held
from medrecon.core.volume import Volume
from medrecon.formats import read
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.pipeline.job import Job
from medrecon.runs import Kept, Run, Task
from medrecon.simulate import simulate_ct

SLICES = 6


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    g = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([4.0, 4.0, 2.0, 1.0], dtype=torch.float64))
    volume = Volume(200 * torch.rand(SLICES, 32, 32, generator=g), affine, "HU", "CT")
    path: Path = tmp_path_factory.mktemp("scan") / "ct.h5"
    save_scan(simulate_ct(volume, size=32, views=12, generator=g), path)
    return path


def argv(scan: Path, output: Path, *more: str) -> list[str]:
    return ["recon", str(scan), "-o", str(output), "--solver", "cgls", "--batch", "1", "--quiet", *more]


@pytest.fixture(scope="module")
def alone(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("alone") / "x.nii.gz"
    assert main(argv(scan, output)) == 0
    assert sorted(os.listdir(output.parent)) == ["x.json", "x.nii.gz", "x.report.json"]
    return output.read_bytes()


def ends_as(alone: bytes, output: Path) -> None:
    assert output.read_bytes() == alone
    assert sorted(os.listdir(output.parent)) == ["x.json", "x.nii.gz", "x.report.json"]


class Counted:
    """Counts the batches that are solved, and does something at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int = -1, act: Callable[[], None] = lambda: None) -> None:
        self.batches: list[int] = []
        self.at, self.act, self.adapted = at, act, Job.adapted
        monkeypatch.setattr(Job, "adapted", lambda job, index: self(job, index))

    def __call__(self, job: Job, index: slice) -> object:
        self.batches.append(index.start)
        if len(self.batches) == self.at:
            self.act()
        return self.adapted(job, index)


def interrupted() -> None:
    raise KeyboardInterrupt


def test_a_killed_run_goes_on_with_what_is_missing(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.nii.gz"
    counted = Counted(monkeypatch, 3, interrupted)
    assert main(argv(scan, output)) == 130 and counted.batches == [0, 1, 2]
    assert os.listdir(tmp_path) == ["x.nii.gz.slices"]
    capsys.readouterr()
    counted = Counted(monkeypatch)
    assert main(argv(scan, output)) == 0 and counted.batches == [2, 3, 4, 5]
    assert "going on: 2 of 6 slices are kept in" in capsys.readouterr().err
    ends_as(alone, output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_finishes_the_slice(
    number: signal.Signals,
    code: int,
    scan: Path,
    alone: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as in the background of a shell, and stays so")
    output = tmp_path / "x.nii.gz"
    counted = Counted(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(argv(scan, output)) == code and counted.batches == [0, 1]
    said = capsys.readouterr().err
    assert f"{number.name}: finishing the slices at hand; once more ends it at once" in said
    assert "stopped: 2 of 6 slices are kept in" in said and "the same command goes on from there" in said
    assert signal.getsignal(number) is before
    counted = Counted(monkeypatch)
    assert main(argv(scan, output)) == 0 and counted.batches == [2, 3, 4, 5]
    ends_as(alone, output)


def test_a_second_signal_ends_at_once(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    counted = Counted(monkeypatch, 3, twice)
    assert main(argv(scan, tmp_path / "x.nii.gz")) == 143
    assert len(counted.batches) == 3
    assert len(list((tmp_path / "x.nii.gz.slices").glob("*.part"))) == 2


def test_a_signal_at_the_last_slice_changes_nothing(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counted(monkeypatch, SLICES, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(argv(scan, tmp_path / "x.nii.gz")) == 0
    ends_as(alone, tmp_path / "x.nii.gz")


def test_another_run_is_refused_and_may_begin_anew(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.nii.gz"
    Counted(monkeypatch, 3, interrupted)
    assert main(argv(scan, output, "--settings.iterations", "3")) == 130
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        counted = Counted(monkeypatch)
        assert main([*argv(scan, output), *more]) == 1 and not counted.batches
        assert "holds slices of another run: settings: iterations was 3 and is" in capsys.readouterr().err
    counted = Counted(monkeypatch)
    assert main(argv(scan, output, "--no-resume")) == 0 and len(counted.batches) == SLICES
    ends_as(alone, output)


def test_what_fails_is_tried_again_and_leaves_no_folder(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.nii.gz"

    def wrong() -> None:
        raise ValueError("a cosmic ray")

    def ray_and_kill() -> None:
        counted.at, counted.act = 4, interrupted
        wrong()

    counted = Counted(monkeypatch, 2, ray_and_kill)
    assert main(argv(scan, output)) == 130
    counted = Counted(monkeypatch)
    assert main(argv(scan, output)) == 0 and counted.batches == [1, 3, 4, 5], "the failed one again"
    ends_as(alone, output)
    Counted(monkeypatch, 2, wrong)
    assert main(argv(scan, output, "--overwrite")) == 1
    assert "1 of 6 slices failed: 1" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.nii.gz", "x.report.json"]


def test_a_run_in_which_all_failed_leaves_nothing(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(job: Job, index: slice) -> object:
        raise ValueError("no power")

    monkeypatch.setattr(Job, "adapted", wrong)
    assert main(argv(scan, tmp_path / "x.nii.gz")) == 1
    assert "no power" in capsys.readouterr().err and not os.listdir(tmp_path)
    monkeypatch.undo()
    assert main(argv(scan, tmp_path / "x.nii.gz", "--slices", "2:9")) == 2 and not os.listdir(tmp_path)


def test_killed_before_the_folder_is_removed(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "x.nii.gz"
    with monkeypatch.context() as patched:
        patched.setattr("medrecon.runs.discard", lambda folder: interrupted())
        assert main(argv(scan, output)) == 130
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.nii.gz", "x.nii.gz.slices", "x.report.json"]
    assert main(argv(scan, output)) == 1, "the output is there"
    ends_as(alone, output)


def test_a_full_disk_keeps_the_slices(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "x.nii.gz"

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("medrecon.formats.nifti._save", full)
        assert main(argv(scan, output)) == 1
    assert os.listdir(tmp_path) == ["x.nii.gz.slices"]
    counted = Counted(monkeypatch)
    assert main(argv(scan, output)) == 0 and not counted.batches
    ends_as(alone, output)


def test_shards_one_after_the_other(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, counted = tmp_path / "x.nii.gz", Counted(monkeypatch)
    for shard, held_now in (("2/4", 2), ("4/4", 3), ("1/4", 5)):
        assert main(argv(scan, output, "--shard", shard)) == 0
        assert f"shard {shard} is done, others are not: {held_now} of 6 slices" in capsys.readouterr().err
        assert os.listdir(tmp_path) == ["x.nii.gz.slices"]
    assert main(argv(scan, output, "--shard", "3/4")) == 0
    assert sorted(counted.batches) == list(range(SLICES))
    ends_as(alone, output)


def test_a_shard_and_a_whole_run_keep_off_each_other(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, folder = tmp_path / "x.nii.gz", tmp_path / "x.nii.gz.slices"
    folder.mkdir()
    with held(folder / "2-of-4.lock", "shard"):
        assert main(argv(scan, output)) == 1
        assert "shard 2/4 is at work on it" in capsys.readouterr().err
        assert main(argv(scan, output, "--shard", "2/4")) == 1
        assert "shard 2/4: another run of medrecon is writing there" in capsys.readouterr().err
        assert main(argv(scan, output, "--shard", "3/4")) == 0
    assert main(argv(scan, output)) == 0


def test_a_shard_is_refused_while_a_whole_run_is_at_it(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medrecon.cli.running.TRIES", 2)
    output = tmp_path / "x.nii.gz"
    with claimed(output):
        assert main(argv(scan, output, "--shard", "1/2")) == 1
    assert "another run of medrecon is writing there" in capsys.readouterr().err and not os.listdir(tmp_path)


def test_a_shard_that_has_kept_nothing_leaves_the_folder_to_the_others(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, folder = tmp_path / "x.nii.gz", tmp_path / "x.nii.gz.slices"
    Counted(monkeypatch, 1, interrupted)
    folder.mkdir()
    with held(folder / "2-of-2.lock", "shard"):
        assert main(argv(scan, output, "--shard", "1/2")) == 130
        assert (folder / "2-of-2.lock").exists()
    monkeypatch.undo()
    assert main(argv(scan, output, "--shard", "2/2")) == 0
    assert main(argv(scan, output, "--shard", "1/2")) == 0
    ends_as(alone, output)


def test_shards_that_run_at_the_same_time(scan: Path, alone: bytes, tmp_path: Path) -> None:
    lines = [argv(scan, tmp_path / "x.nii.gz", "--shard", f"{i}/3") for i in (1, 2, 3)]
    started = [subprocess.Popen([sys.executable, "-m", "medrecon", *line]) for line in lines]
    assert [process.wait() for process in started] == [0, 0, 0]
    ends_as(alone, tmp_path / "x.nii.gz")


def test_workers_that_die_at_once_are_an_error(scan: Path, tmp_path: Path) -> None:
    pool = lambda: ProcessPoolExecutor(1, get_context("spawn"), os._exit, (3,))  # noqa: E731
    run = Run(Task(scan, load_scan, "cgls"), tmp_path / "x.slices")
    with pytest.raises(RuntimeError, match=r"died before .* fewer --workers or a smaller --batch"):
        run.solve(pool)


def test_wrong_shards_and_workers_are_wrong_usage(scan: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.nii.gz"
    for more in (
        ["--shard", "5/4"],
        ["--shard", "slurm"],
        ["--workers", "0"],
        ["--workers", "2", "--scheduler", "local"],
    ):
        assert main(argv(scan, output, *more)) == 2
    assert not os.listdir(tmp_path)


def test_workers_write_the_same_bytes(scan: Path, alone: bytes, tmp_path: Path) -> None:
    assert main(argv(scan, tmp_path / "x.nii.gz", "--workers", "2")) == 0
    ends_as(alone, tmp_path / "x.nii.gz")


def test_dask_writes_the_same_bytes(scan: Path, alone: bytes, tmp_path: Path) -> None:
    line = argv(scan, tmp_path / "x.nii.gz", "--scheduler", "local")
    done = subprocess.run([sys.executable, "-m", "medrecon", *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends_as(alone, tmp_path / "x.nii.gz")


def test_the_result_is_that_of_one_call(scan: Path, tmp_path: Path) -> None:
    assert main(argv(scan, tmp_path / "x.nii.gz")) == 0
    whole, _ = pipeline_run.reconstruct(load_scan(scan), "cgls", batch=1)
    assert torch.equal(read(tmp_path / "x.nii.gz").data, whole.data)


def test_slices_of_ct_are_read_alone_and_keep_their_numbers(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose other slices are damaged shows what is read."""
    assert main(argv(scan, tmp_path / "whole.nii.gz")) == 0
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(scan.read_bytes())
    with h5py.File(damaged, "r+") as h5:
        h5["data"][0] = 0.5
    assert main(argv(damaged, tmp_path / "none.nii.gz")) == 1 and "slice 0 is damaged" in capsys.readouterr().err
    output = tmp_path / "part.nii.gz"
    for more in ([], ["--workers", "2"]):
        assert main(argv(damaged, output, "--slices", "2:5", "--overwrite", *more)) == 0
        whole, part = (read(path) for path in (tmp_path / "whole.nii.gz", output))
        assert torch.equal(part.data, whole.data[2:5]) and torch.allclose(part.affine, whole.slices(2, 5).affine)
    report = json.loads((tmp_path / "part.report.json").read_text())
    assert report["slices"] == [2, 5] and len(report["chi2_slices"]) == 3

    def wrong() -> None:
        raise ValueError("a cosmic ray")

    Counted(monkeypatch, 2, wrong)
    assert main(argv(damaged, output, "--slices", "2:5", "--overwrite")) == 1
    assert "slice 3 could not be reconstructed" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "part.report.json").read_text())["failed"]) == ["3"]


def test_one_batch_is_held_at_a_time(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Task(scan, load_scan, "cgls", {"batch": 2}), tmp_path / "x.slices")
    run.solve()
    stack, _ = run.result()
    loaded: list[int] = []
    load = Kept.load
    monkeypatch.setattr(Kept, "load", lambda kept, index: (loaded.append(index.start), load(kept, index))[1])
    whole, _ = pipeline_run.reconstruct(load_scan(scan), "cgls", batch=2)
    assert torch.equal(stack.whole().data, whole.data) and loaded == [0, 2, 4]
    assert torch.equal(stack.read(5), whole.data[5]) and torch.equal(stack.read(1), whole.data[1])
    assert torch.equal(stack.affine, whole.affine) and (stack.units, stack.source) == (whole.units, whole.source)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_worker(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def slow(scan: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A run of minutes on two workers, at work."""
    line = ["recon", str(scan), "-o", str(tmp_path / "x.nii.gz"), "--solver", "tv", "--batch", "1", "--workers", "2"]
    line += ["--settings.iterations", "2500", "--settings.tolerance", "0", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "medrecon", *line], start_new_session=True)
    folder = tmp_path / "x.nii.gz.slices"
    while process.poll() is None and not list(folder.glob("*.part")):
        time.sleep(0.05)
    return process


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="processes are found in /proc, which only Linux has"
)


@needs_proc
def test_a_dead_worker_costs_its_slices_only(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.kill(next(filter(is_worker, children(slow.pid))), signal.SIGKILL)
    assert slow.wait() == 0
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.nii.gz", "x.report.json"]


@needs_proc
def test_a_second_signal_ends_workers_at_once(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "x.nii.gz.slices"
    workers, kept = (list(filter(is_worker, children(slow.pid))), len(list(folder.glob("*.part"))))
    for _ in range(2):
        slow.terminate()
        time.sleep(0.5)
    assert slow.wait() == 143
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert len(list(folder.glob("*.part"))) <= kept + 1, "it waited for the slices in flight"


@needs_proc
def test_workers_end_with_their_parent(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    workers = list(filter(is_worker, children(slow.pid)))
    assert len(workers) == 2
    slow.kill()
    slow.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)
    parts = list((tmp_path / "x.nii.gz.slices").glob("*.part"))
    assert parts and not (tmp_path / "x.nii.gz").exists()


def test_a_noise_map_goes_on_and_is_parted_too(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noise(name: str, *more: str, replicas: str = "3") -> list[str]:
        output = str(tmp_path / name)
        return ["noise", str(scan), "-o", output, "--solver", "cgls", "--replicas", replicas, "--quiet", *more]

    assert main(noise("alone.nii")) == 0
    whole = (tmp_path / "alone.nii").read_bytes()
    with monkeypatch.context() as patched:
        Counted(patched, 3, interrupted)
        assert main(noise("x.nii")) == 130
    assert main(noise("x.nii", replicas="4")) == 1
    assert "replicas was 3 and is 4" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        counted = Counted(patched)
        assert main(noise("x.nii")) == 0 and counted.batches == [2, 3, 4, 5]
    for part in ("1/2", "2/2"):
        assert main(noise("y.nii", "--shard", part)) == 0
    assert (tmp_path / "x.nii").read_bytes() == (tmp_path / "y.nii").read_bytes() == whole
    assert not list(tmp_path.glob("*.slices"))


def test_a_slice_whose_noise_cannot_be_mapped_costs_the_others_nothing(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ValueError("no such slice")

    Counted(monkeypatch, 2, broken)
    output = tmp_path / "x.nii"
    assert main(["noise", str(scan), "-o", str(output), "--solver", "cgls", "--replicas", "2", "--quiet"]) == 1
    assert "1 of 6 slices failed: 1" in capsys.readouterr().err
    found = read(output).data
    assert bool((found[1] == found[1, 0, 0]).all()) and float(found[2].std()) > 0


def test_a_run_killed_between_its_preview_and_its_image_writes_both(
    scan: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medrecon.cli.commands import recon

    output, preview = tmp_path / "x.nii.gz", tmp_path / "p.png"
    command = argv(scan, output, "--preview", str(preview))
    with monkeypatch.context() as patched:
        patched.setattr(recon, "save", lambda *what: interrupted())
        assert main(command) == 130
    assert preview.exists() and not output.exists()
    assert main(command) == 0
    assert output.read_bytes() == alone and preview.exists()
    assert main([*command, "--quiet"]) == 2  # nothing was left, so both are in the way again


def test_a_measurement_that_changes_meanwhile_stops_the_run_and_loses_nothing(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault of a slice: the others must not become empty, nor the finished ones be thrown away."""
    own = tmp_path / "m.h5"
    own.write_bytes(scan.read_bytes())
    output = tmp_path / "x.nii.gz"
    with monkeypatch.context() as patched:
        Counted(patched, 3, lambda: os.utime(own, (1, 1)))
        assert main(argv(own, output)) == 1
    assert "was changed or replaced while it was read" in capsys.readouterr().err
    assert not output.exists() and len(list((tmp_path / "x.nii.gz.slices").glob("*.part"))) == 3
    assert main(argv(own, output)) == 0
    assert output.exists() and not (tmp_path / "x.nii.gz.slices").exists()
