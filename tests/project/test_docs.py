"""The tutorial's blocks run in order, as on a user's machine, and lead to what it says."""

import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from medrecon.cli import main

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the Python and bash blocks of a page, in order."""
    return re.findall(r"^```(python|bash)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def run(page: str) -> None:
    """Run a page's blocks in the current folder, as one would type them, in this process: starting it costs seconds."""
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), {"__name__": "page"})
            continue
        for line in text.splitlines() if text.startswith("medrecon ") else [text]:
            command, _, target = line.partition(" > ")
            if not line.startswith("medrecon "):
                subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True)
                continue
            with open(target or os.devnull, "w") as file, contextlib.redirect_stdout(file):
                assert main(shlex.split(command)[1:]) == 0, line


def test_from_a_folder_of_dicom_to_a_reconstruction_with_ones_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    run("docs/guide/train_your_own.md")
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
