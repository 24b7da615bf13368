"""The page of mistakes is what the command line answers: each mistake is made again."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guide" / "mistakes.md"


def script() -> ModuleType:
    """benchmarks/robustness/mistakes.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("mistakes", ROOT / "benchmarks" / "robustness" / "mistakes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MISTAKES = script()
ALL = [(what, line) for entries in MISTAKES.MISTAKES.values() for what, line in entries]
SLOW = ("--solver dds --label", "--solver resample", "--solver homodyne")
"""Those that load a prior or reconstruct; `tests/pipeline/test_prepare.py` has the first two."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with MISTAKES.inputs() as path:
        yield path


@pytest.mark.parametrize(("what", "line"), [m for m in ALL if not any(s in m[1] for s in SLOW)])
def test_the_answer_is_on_the_page(folder: Path, what: str, line: str) -> None:
    if "--device cuda" in line and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert MISTAKES.entry(what, line) in PAGE.read_text()


def test_the_page_is_whole() -> None:
    text = PAGE.read_text()
    assert len(ALL) >= 60
    assert [line for _, line in ALL if f"$ medrecon {line}\n" not in text] == []
    assert "Traceback" not in text and "codec can't" not in text
