"""A copy of the package in which mutants live, and runs of its tests: each a fork of this process, in which the heavy
libraries are imported and medrecon is not. One thread."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = """torch torch.func torch.distributed.tensor torch.fx.experimental.symbolic_shapes numpy scipy.ndimage
scipy.sparse.linalg scipy.optimize scipy.special scipy.io numba pytest hypothesis h5py pydicom nibabel sigpy astra
einops pydantic cyclopts rich yaml safetensors.torch PIL.Image matplotlib.figure skimage.metrics monai.networks.nets
finufft ismrmrd"""
"""Imported once."""
OPTIONS = """-x -q --no-header --tb=line --import-mode=importlib -rfE -p no:cacheprovider -p no:unraisableexception
-p _hypothesis_pytestplugin --hypothesis-seed=0 -W ignore -o addopts="""


@dataclass(frozen=True)
class Run:
    """How a run of tests ended: passed, failed (`by` a test) or out of time; CPU seconds."""

    outcome: str
    seconds: float
    by: str = ""


class Watch:
    """Writes down which functions of the package each test of a file calls, and for how long it runs."""

    def __init__(self, copy: Path, file: Path) -> None:
        self.copy, self.file = f"{copy}/", file
        self.shared: set[CodeType] = set()
        self.calls: set[CodeType] = set()
        self.tests: dict[str, tuple[float, list[str]]] = {}

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls.add(frame.f_code)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.calls, start = set(), time.process_time()
        sys.settrace(self._note)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            names = {self.name(code) for code in self.calls | self.shared}
            self.tests[item.nodeid] = time.process_time() - start, sorted(n for n in names if n)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """What a fixture of the file calls counts for all tests after it."""
        before, self.calls = self.calls, set()
        result = yield
        self.shared |= self.calls if fixturedef.scope != "function" else set()
        self.calls |= before
        return result

    def name(self, code: CodeType) -> str:
        file = code.co_filename.replace("/medrecon/operators/", "/operators/").replace("/medrecon/models/", "/models/")
        if not file.startswith(self.copy) or "/tests/" in file:
            return ""
        return f"{file.removeprefix(self.copy)}:{code.co_qualname.replace('.<locals>', '')}"

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(self.tests))


class Choose:
    """Keeps only the tests asked for, in their order, and ends the process when one takes too long.

    Args:
        clean: CPU seconds of each test without a fault.
        more: seconds that a test may take besides three times that.
    """

    def __init__(self, clean: dict[str, float], more: float) -> None:
        self.clean, self.more = clean, more
        self.place = {test: n for n, test in enumerate(clean)}

    def pytest_sessionstart(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self.more + 5)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_PROF, self.more + 3 * self.clean[item.nodeid])
        return (yield)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda i: self.place[i.nodeid])


class Workshop:
    """A copy of the package and its tests, in which mutants live."""

    def __init__(self, folder: Path) -> None:
        self.copy, self.log = folder / "copy", folder / "pytest.log"
        for name in LIBRARIES.split():
            if importlib.util.find_spec(name.split(".")[0]):
                importlib.import_module(name)
        gc.freeze()
        shutil.rmtree(self.copy, ignore_errors=True)
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            source, target = ROOT / name, self.copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
            if not target.is_symlink():
                os.utime(target, (1e9, 1e9))  # a mutant is newer: its bytecode is made anew
        sys.dont_write_bytecode = True

    def test(self, tests: Iterable[str], seconds: float, kernels: Path, plugin: object) -> Run:
        """Run tests in a fork until the first fails; `kernels` is where numba keeps what it compiled."""
        self.log.write_text("")
        child = os.fork()
        if child == 0:
            self._child([*tests], seconds, kernels, plugin)
        end, done = time.monotonic() + 60 + 30 * seconds, 0
        while not done and time.monotonic() < end:
            time.sleep(0.05)
            done, status, usage = os.wait4(child, os.WNOHANG)
        if not done:
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
        used, lines = usage.ru_utime + usage.ru_stime, self.log.read_text(errors="replace").splitlines()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU, signal.SIGKILL):
            return Run("timeout", used)
        if status == 0:
            return Run("passed", used)
        told = [line.split(" ")[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
        return Run("failed", used, told[0] if told else "a crash")

    def _child(self, tests: list[str], seconds: float, kernels: Path, plugin: object) -> None:
        os.setsid()
        log = os.open(self.log, os.O_WRONLY)
        os.dup2(log, 1), os.dup2(log, 2)
        os.chdir(self.copy)
        sys.path.insert(0, str(self.copy))
        os.environ |= {"PYTHONPATH": str(self.copy), "NUMBA_CACHE_DIR": str(kernels), "PYTHONDONTWRITEBYTECODE": "1"}
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
        import numba

        setattr(numba.config, "CACHE_DIR", str(kernels))  # noqa: B010  # its attributes are made at run time
        code = pytest.main([*OPTIONS.split(), "--basetemp", str(self.copy.parent / "temp"), *tests], [plugin])
        sys.stdout.flush()
        os._exit(int(code))
