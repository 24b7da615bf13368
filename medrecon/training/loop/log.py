"""The loss curve as JSON lines: consistent with the checkpoint after a kill at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medrecon.core import atomic


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of log.jsonl; a line torn by a kill is left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class Log:
    """Appends rows {"step": ..., ...}.

    A run that resumes at `step` trains the steps after it again: their rows, and torn ones, are dropped on opening.

    Attributes:
        step: step of the last row of the loss curve, 0 without one; notes do not count.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        rows = [row for row in read_log(path) if row["step"] <= step]
        self.step = max((row["step"] for row in rows if "note" not in row), default=0)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if path.exists() and path.read_bytes() != text.encode():
            with atomic.file(path, overwrite=True) as partial:
                partial.write_text(text)

    def write(self, step: int, **values: Any) -> None:
        """One line; numbers to six digits, enough for a curve."""
        row = {"step": step} | {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint that counts on it
        if "note" not in row:
            self.step = step
