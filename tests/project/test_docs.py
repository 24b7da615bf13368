"""The tutorial's blocks run in order, as on a user's machine, and lead to what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the Python and bash blocks of a page, in order."""
    return re.findall(r"^```(python|bash)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def run(page: str, folder: Path) -> str:
    """Run a page's blocks in `folder`, where `medrecon` is this checkout's; what the last one printed."""
    program = folder / "bin" / "medrecon"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m medrecon "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    printed = ""
    for language, text in blocks(page):
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stderr}"
        printed = done.stdout + done.stderr
    return printed


def test_from_a_folder_of_dicom_to_a_reconstruction_with_ones_own_weights(tmp_path: Path) -> None:
    run("docs/guide/train_your_own.md", tmp_path)
    card = json.loads((tmp_path / "training" / "prior.json").read_text())
    assert {part: facts["steps"] for part, facts in card["history"].items()} == dict.fromkeys(
        ("autoencoder", "fine", "coarse"), 40
    )
    assert card["data"]["licence"] == "made up, free to use"
    report = json.loads((tmp_path / "mine.report.json").read_text())
    assert report["chi2"] < 3  # it explains the measurement
    assert json.loads((tmp_path / "figures.json").read_text())["psnr_db"] > 25
    errors = [e["network"] / e["gaussian"] for e in card["validation"]["denoising_mse"]["fine"].values()]
    assert sum(errors) < len(errors)  # it learned something
