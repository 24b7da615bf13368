"""The training loop: budgets, kills, signals, full disks, and two processes that train as one."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_ranks import STEPS, net, settings
from two_ranks import regression as image_regression

from medrecon.core import atomic
from medrecon.core.lock import Busy
from medrecon.training.loop.checkpoint import NAME, training_facts
from medrecon.training.loop.config import LoopConfig
from medrecon.training.loop.distributed import process_group, rank, rank_zero_first, world_size
from medrecon.training.loop.log import Log, read_log
from medrecon.training.loop.schedule import learning_rate
from medrecon.training.loop.signals import Stopped, stop_signals
from medrecon.training.loop.steps import LOCK, fit

pytestmark = pytest.mark.usefixtures("one_thread")


def silent(*_):
    pass


def regression(module, generator):
    x = torch.randn(16, 3, generator=generator)
    return (module(x) - x.sum(1, keepdim=True)).square().mean()


def run(folder, steps, stop=None, loss=regression, validate=lambda m: {}, **changed):
    """Train a linear map; `stop` kills the run after that many steps."""
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)

    def report(done, *_):
        if done == stop:
            raise KeyboardInterrupt

    loop = {"warmup": 1, "save_seconds": 1e-9, "validate_every": steps, "log_every": 2} | changed
    return fit(module, loss, validate, LoopConfig(steps=steps, **loop), folder, report)


def equal(one, other):
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def curve(folder):
    """The loss curve without the times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_log(folder / "log.jsonl")]


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_a_killed_run_resumes_to_the_same_bits_and_the_same_log(tmp_path, stop):
    whole = run(tmp_path / "a", 12)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 12, stop=stop)
    assert equal(whole, run(tmp_path / "b", 12))
    assert curve(tmp_path / "b") == curve(tmp_path / "a")
    assert [row["step"] for row in curve(tmp_path / "a")] == [2, 4, 6, 8, 10, 12]
    assert sorted(os.listdir(tmp_path / "b")) == [NAME, "log.jsonl"]


def test_work_after_the_last_checkpoint_is_trained_and_logged_again(tmp_path):
    """The checkpoint is of step 4 (saved before its validation), the kill after step 9."""
    rare = {"save_seconds": 1e4, "validate_every": 4}
    whole = run(tmp_path / "a", 12, **rare)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 12, stop=7, **rare)
    facts = training_facts(tmp_path / "b")
    assert facts["steps"] == 4 and "CPU" in facts["hardware"]
    with (tmp_path / "b" / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "lo')  # the kill tore this line
    assert equal(whole, run(tmp_path / "b", 12, **rare))
    assert curve(tmp_path / "b") == curve(tmp_path / "a")


def test_a_validation_cut_off_by_a_kill_is_made_up(tmp_path):
    def killed(_):
        raise KeyboardInterrupt

    rare = {"save_seconds": 1e4, "validate_every": 3}
    whole = run(tmp_path / "a", 6, validate=lambda m: {"score": 2.0}, **rare)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 6, validate=killed, **rare)
    assert [row["step"] for row in curve(tmp_path / "b")] == [2]
    assert equal(whole, run(tmp_path / "b", 6, validate=lambda m: {"score": 2.0}, **rare))
    assert curve(tmp_path / "b") == curve(tmp_path / "a")
    assert [row["step"] for row in curve(tmp_path / "a") if "score" in row] == [3, 6]


def test_a_torn_log_is_mended_on_opening(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = ['{"step": 1, "loss": 1.0}', '{"step": 2, "loss": 0.5}', '{"step": 3, "loss": 0.4}']
    for torn in ('{"step"', "3", "nu", '{"loss": 2}', "\x00\x00\x00"):
        path.write_text("\n".join([*rows, torn]))
        log = Log(path, 2)
        assert log.step == 2
        log.write(3, loss=1 / 3)
        assert path.read_text().splitlines() == [*rows[:2], '{"step": 3, "loss": 0.333333}']
    Log(path, 0)  # without a checkpoint the run starts anew, and so does its log
    assert read_log(path) == []


def test_another_architecture_and_a_damaged_checkpoint_are_refused(tmp_path):
    run(tmp_path, 2)
    with pytest.raises(ValueError, match="another architecture"):
        fit(torch.nn.Linear(4, 1), regression, lambda m: {}, LoopConfig(steps=3), tmp_path, silent)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{NAME} is damaged"):
        run(tmp_path, 3)


def test_a_checkpoint_of_the_first_format_is_resumed(tmp_path):
    """It had the step alone in its header, and one generator."""
    from safetensors.torch import save_file

    whole = run(tmp_path / "a", 12)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 12, stop=5)
    tensors = load_file(tmp_path / "b" / NAME)
    tensors["generator"] = tensors["generator"].flatten().clone()
    save_file(tensors, tmp_path / "b" / NAME, {"step": "5"})
    assert training_facts(tmp_path / "b") == {
        "steps": 5,
        "minutes": 0.0,
        "world_size": 1,
        "optimizer": "AdamW",
        "hardware": "not recorded",
    }
    assert equal(whole, run(tmp_path / "b", 12))


def test_frozen_weights_stay_and_resume(tmp_path):
    for steps in (3, 6):
        module = net(0)
        average = fit(module, image_regression, lambda m: {}, settings(steps=steps), tmp_path, silent)
        assert torch.equal(average.spare, torch.ones(2))


def poisoned(module):
    return module.weight.sum() * float("nan")


def steep(module):
    """Zero, with an infinite gradient."""
    return (module.weight - module.weight.detach()).abs().sum().sqrt()


@pytest.mark.parametrize("extra", [poisoned, steep])
def test_a_loss_or_a_gradient_that_is_not_finite_stops_the_run(tmp_path, extra):
    calls = []

    def loss(module, generator):
        calls.append(0)
        good = regression(module, generator)
        return good if len(calls) < 4 else good + extra(module)

    with pytest.raises(FloatingPointError, match="step 3: lower lr"):
        run(tmp_path, 9, loss=loss)
    assert training_facts(tmp_path)["steps"] == 3
    assert all(v.isfinite().all() for k, v in load_file(tmp_path / NAME).items())


def test_learning_rate_warms_up_and_anneals_to_nearly_zero():
    loop = LoopConfig(steps=1000, lr=1.0, warmup=100, final_lr=0.01)
    assert learning_rate(loop, 0) == pytest.approx(0.01)
    assert learning_rate(loop, 99) > 0.9
    assert learning_rate(loop, 999) == pytest.approx(0.01, abs=1e-3)
    timed = loop.model_copy(update={"minutes": 2.0})
    assert learning_rate(timed, 500, 0.0) == learning_rate(loop, 500)
    assert learning_rate(timed, 500, 60.0) == learning_rate(loop, 500)  # steps and time agree
    assert learning_rate(timed, 500, 120.0) == learning_rate(timed, 1000, 0.0) == pytest.approx(0.01)


class Clock:
    """Stands for time.monotonic: every look at it lasts `tick` seconds."""

    def __init__(self, tick):
        self.now, self.tick = 1000.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def test_a_time_budget_ends_the_run_annealed_and_counts_over_resumptions(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", Clock(1.0))
    budget = {"minutes": 0.5, "lr": 1.0, "final_lr": 0.01, "validate_every": 10**6, "log_every": 1}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 10**6, stop=12, **budget)
    spent = training_facts(tmp_path)["minutes"]
    assert spent == pytest.approx(0.2, abs=0.05)
    monkeypatch.setattr(time, "monotonic", Clock(1.0))  # another process, another origin
    run(tmp_path, 10**6, **budget)
    log = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in log] == list(range(1, len(log) + 1))
    assert 28 <= len(log) <= 31
    rates = [row["lr"] for row in log]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.01, rel=0.02)
    assert training_facts(tmp_path)["minutes"] == 0.5
    before = load_file(tmp_path / NAME)
    run(tmp_path, 10**6, **budget)  # nothing left to do
    assert all(torch.equal(v, before[k]) for k, v in load_file(tmp_path / NAME).items())


@pytest.fixture
def interruptible():
    """SIGINT as Python sets it up: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Stopped), (signal.SIGHUP, Stopped), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_the_run_after_its_step_saved(tmp_path, interruptible, number, error):
    calls = []

    def loss(module, generator):
        calls.append(0)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return regression(module, generator)

    rare = {"save_seconds": 1e4}
    before = signal.getsignal(number)
    with pytest.raises(error, match=r"after step 5, saved in .*: the same command resumes"):
        run(tmp_path / "b", 12, loss=loss, **rare)
    assert signal.getsignal(number) is before
    assert training_facts(tmp_path / "b")["steps"] == 5
    assert equal(run(tmp_path / "a", 12, **rare), run(tmp_path / "b", 12, **rare))


def interrupted_twice(patient):
    with stop_signals(patient) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    return asked


def test_a_second_interrupt_does_not_wait(interruptible):
    with pytest.raises(KeyboardInterrupt):
        interrupted_twice(patient=False)
    assert len(interrupted_twice(patient=True)) == 2


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals(patient=False) as asked:
            os.kill(os.getpid(), signal.SIGINT)
        assert asked == []
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 12, stop=5)

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "sync_all", full)
        with pytest.raises(OSError, match=r"No space left on device; step 6 .* make space") as raised:
            run(tmp_path, 12)
    assert raised.value.errno == errno.ENOSPC
    assert sorted(os.listdir(tmp_path)) == [NAME, "log.jsonl"]
    assert training_facts(tmp_path)["steps"] == 5
    assert equal(run(tmp_path, 12), run(tmp_path / "a", 12))


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    """Each would replace the checkpoints of the other."""

    def second(module):
        with pytest.raises(Busy, match="another run of medrecon is writing there"):
            run(tmp_path, 12)
        return {}

    run(tmp_path, 4, validate=second)
    assert equal(run(tmp_path, 12), run(tmp_path, 12))  # and is free again
    (tmp_path / LOCK).touch()  # of a run that was killed: it holds nothing
    run(tmp_path, 14)
    assert sorted(os.listdir(tmp_path)) == [NAME, "log.jsonl"]


def test_alone_all_ranks_are_one():
    with process_group("cpu") as device, rank_zero_first():
        assert (device, rank(), world_size()) == ("cpu", 0, 1)


def torchrun(folder):
    """The exit code of two_ranks.py, and what it said."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            str(root / "tests" / "support" / "two_ranks.py"),
            str(folder),
        ],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )
    try:
        said = process.communicate(timeout=180)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its processes
        raise
    return process.returncode, said


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """A folder with the weights of both ranks of every scenario; rank 1 died in the first run of the first one."""
    folder = tmp_path_factory.mktemp("ranks")
    code, said = torchrun(folder)
    assert code != 0 and "exitcode  : 9" in said, said
    assert training_facts(folder / "killed")["steps"] == 4
    code, said = torchrun(folder)
    assert code == 0, said
    return folder


def weights(folder, name):
    return [load_file(folder / f"{name}-{r}.safetensors") for r in (0, 1)]


def same(one, other):
    return all(torch.equal(one[k], other[k]) for k in other)


def test_two_ranks_train_as_one_process_with_the_mean_of_their_losses(two_ranks, tmp_path):
    a, b = weights(two_ranks, "whole")
    assert same(a, b)
    generators = [torch.Generator().manual_seed(1_000_003 * r) for r in (0, 1)]
    mean = lambda module, _: sum(image_regression(module, g) for g in generators) / 2  # noqa: E731
    single = fit(net(0), mean, lambda m: {}, settings(), tmp_path, silent).state_dict()
    assert all(torch.allclose(a[k], single[k], rtol=1e-4, atol=1e-6) for k in a)
    start = net(0).state_dict()
    assert float((a["conv.weight"] - start["conv.weight"]).abs().max()) > 0.05  # it did move


def test_without_averaging_the_ranks_part(two_ranks):
    a, b = weights(two_ranks, "apart")
    assert not torch.allclose(a["conv.weight"], b["conv.weight"], rtol=1e-2)
    assert not torch.allclose(a["conv.weight"], weights(two_ranks, "whole")[0]["conv.weight"], rtol=1e-2)


def test_rank_zero_alone_writes_and_both_stop_on_the_signal_of_one(two_ranks):
    assert sorted(p.name for p in (two_ranks / "whole").iterdir()) == [NAME, "log.jsonl"]
    assert training_facts(two_ranks / "whole")["world_size"] == 2
    rows = [(row["step"], "score" in row) for row in read_log(two_ranks / "whole" / "log.jsonl")]
    assert rows == [(2, False), (4, True), (6, False), (8, True)]
    assert all("after step 3" in (two_ranks / f"stopped-{r}.txt").read_text() for r in (0, 1))
    whole, stopped = weights(two_ranks, "whole")[0], weights(two_ranks, "stopped")
    assert same(stopped[0], whole) and same(stopped[1], whole)
    assert curve(two_ranks / "stopped") == curve(two_ranks / "whole")
    assert (two_ranks / "made.txt").read_text() == "once"


def test_ranks_agree_on_the_time(two_ranks):
    assert same(*weights(two_ranks, "timed"))
    assert training_facts(two_ranks / "timed")["steps"] > 1


def test_a_rank_that_dies_ends_all_and_the_run_resumes(two_ranks):
    assert all(same(w, weights(two_ranks, "whole")[0]) for w in weights(two_ranks, "killed"))
    assert curve(two_ranks / "killed") == curve(two_ranks / "whole")


def test_another_number_of_processes_is_noted(two_ranks, tmp_path):
    for path in (two_ranks / "whole").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for _ in range(2):
        fit(net(0), image_regression, lambda m: {}, settings(steps=STEPS + 2), tmp_path, silent)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 8, 10]
    assert rows[4]["note"] == "2 processes before, 1 now: random numbers start anew"
    assert training_facts(tmp_path)["world_size"] == 1
