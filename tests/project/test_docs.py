"""The tutorial's blocks run in order, as on a user's machine, and lead to what it says."""

import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from medrecon.cli import main
from medrecon.operators.check import check_operator

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


SCRIPTS = ROOT / "docs" / "guide" / "python"


def test_the_page_on_python_begins_with_the_scripts() -> None:
    texts = [text for language, text in blocks("docs/guide/python.md") if language == "python"]
    shown = [(SCRIPTS / f"{name}.py").read_text() for name in ("kspace", "sinogram", "own_operator")]
    assert texts[:3] == shown
    for text in shown:
        assert len([line for line in text.splitlines() if line.strip()]) <= 10


def ran(name: str) -> dict[str, Any]:
    """What a script leaves behind."""
    space: dict[str, Any] = {"__name__": "page"}
    exec(compile((SCRIPTS / f"{name}.py").read_text(), name, "exec"), space)
    return space


def test_numpy_k_space_to_an_image(one_thread: None) -> None:
    left = ran("kspace")
    error = left["volume"].numpy()[0] - left["image"]
    assert abs(error).max() < 0.25 and (error**2).mean() ** 0.5 < 0.02  # of 1 to 1.5
    assert 0.5 < left["report"]["chi2"] < 1.5


def test_numpy_sinogram_and_geometry_to_an_image(one_thread: None) -> None:
    left = ran("sinogram")
    values = left["volume"].numpy()[0]
    x, y = left["scan"].grid.coordinates()
    inside = (x - 20) ** 2 + (y[:, None] - 10) ** 2
    assert abs(values[inside < 36**2].mean()) < 5 and abs(values[inside > 44**2].mean() + 1000) < 5  # HU
    assert values[inside < 36**2].std() < 40 and 0.5 < left["report"]["chi2"] < 1.5


def test_an_own_operator_with_a_shipped_prior(one_thread: None) -> None:
    torch.manual_seed(0)
    left = ran("own_operator")
    image, truth, A = left["solution"].image, left["truth"], left["Coarse"]()
    assert max(check_operator(A).values()) < 1e-5
    error, coarse = image - truth, 4 * A.adjoint(left["y"].data) - truth
    assert float(error.square().mean()) < 0.5 * float(coarse.square().mean())
    assert float(error[left["radius"] < 18].abs().mean()) < 10  # HU, the noise of a pixel
    assert 0.5 < float(left["solution"].chi2) < 1.5
