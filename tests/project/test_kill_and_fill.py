"""A small sample of benchmarks/robustness/kill_and_fill.py: runs killed at random moments, and disks that are full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="fork, prctl and tmpfs")
def test_old_outputs_stay_whole_and_nothing_is_left_over() -> None:
    argv = ["benchmarks/robustness/kill_and_fill.py", "--kills", "6", "--disks", "3", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    only = ["--only", "import", "export", "weights"]
    done = subprocess.run([sys.executable, *argv, *only], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
