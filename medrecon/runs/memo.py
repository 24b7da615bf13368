"""Memo: a computation's parts by name, kept in the folder of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medrecon.core.keeping import Tensors
from medrecon.runs.kept import Kept
from medrecon.runs.stored import SUFFIX, get, put


@dataclass(frozen=True)
class Memo:
    """Gives what was kept under a name, or makes it and keeps it; see `medrecon.core.keeping`.

    Attributes:
        kept: the folder, whose record says what its parts are of.
    """

    kept: Kept

    def __call__(self, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Return the tensors of a name.

        Raises:
            OSError: a full disk, or the folder is gone.
            ValueError: a part that is damaged: names the file.
        """
        path = self.kept.folder / f"{name}{SUFFIX}"
        if path.is_file():
            return get(path)[0]
        made = make()
        put(path, made, {})
        return made

    @property
    def count(self) -> int:
        """How many parts are kept."""
        return len(list(self.kept.folder.glob(f"*{SUFFIX}")))
