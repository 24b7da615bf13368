"""Runs the DICOM tools of the test extra on files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def tool(name: str) -> str:
    path = shutil.which(name) or str(Path(sys.executable).parent / name)
    if not Path(path).exists():
        pytest.skip(f"{name} is not installed; pip install 'medrecon[test]'")
    return path


def assert_valid(path: Path) -> None:
    """No error by the DICOM validator of dicom3tools; its warnings are about the source's values."""
    for file in (sorted(path.iterdir())[0], sorted(path.iterdir())[-1]):
        said = subprocess.run([tool("dciodvfy"), "-new", str(file)], capture_output=True, text=True, check=False)
        errors = [line for line in said.stderr.splitlines() if line.startswith("Error")]
        assert said.returncode == 0 and not errors, errors
