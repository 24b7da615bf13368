"""The same slice twice: exactly, or nearly (noise, resampling, another rounding, a shift by a pixel).

A slice is averaged to 32 x 32, its local mean (5 x 5) taken away, and brought to norm 1; two slices are near duplicates
when the scalar product of these is at least `NEAR`. On the corpus slices of different patients reach 0.64 (CT) and 0.84
(MRI), a slice and itself shifted by one pixel both ways at least 0.93 (docs/guide/data.md). Not found: flips,
rotations, another window.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.core.progress import OnProgress, silent
from medrecon.data.manifest import Split

NEAR = 0.9
SIDE, BLOCK = 32, 2048


def signatures(data: Tensor) -> Tensor:
    """(N, H, W) -> (N, 1024) of norm 1; 0 of slices without any structure."""
    small = torch.nn.functional.adaptive_avg_pool2d(data[:, None].float(), SIDE)
    detail = small - torch.nn.functional.avg_pool2d(small, 5, 1, 2, count_include_pad=False)
    detail = detail.flatten(1)
    detail = detail - detail.mean(1, keepdim=True)
    norm = detail.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-3, detail / norm.clamp_min(1e-3), 0.0)


class Duplicates:
    """Collects slices volume by volume and finds pairs.

    Signatures lie in a temporary file (2 KiB a slice); in memory are two blocks of them, and 24 bytes a slice. Time is
    that of comparing all pairs: about 2e13 operations for 100 000 slices.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the object
        weakref.finalize(self, self._file.close)
        self._digests: list[int] = []
        self._volume: list[int] = []
        self._number: list[int] = []
        self._volumes: list[tuple[str, str, Split | None]] = []

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, data: Tensor, name: str, subject: str, split: Split | None) -> None:
        """The slices (N, H, W) int16 of a volume."""
        self._file.write(signatures(data).numpy().astype(np.float16).tobytes())
        for i, plane in enumerate(data.contiguous().numpy()):
            digest = hashlib.blake2b(plane.tobytes(), digest_size=8, person=str(plane.shape).encode()[:16])
            self._digests.append(int.from_bytes(digest.digest(), "little"))
            self._volume.append(len(self._volumes))
            self._number.append(i)
        self._volumes.append((name, subject, split))

    def _table(self) -> Any:
        self._file.flush()
        return np.memmap(self._file, np.float16, "r", shape=(len(self), SIDE * SIDE))

    def find(self, near: float = NEAR, keep: int = 100, on_progress: OnProgress = silent) -> dict[str, Any]:
        """Counts of pairs across splits and between subjects of a split, and the `keep` most alike of each."""
        groups = {"across_splits": _Pairs(keep), "between_subjects": _Pairs(keep)}
        n = len(self)
        if n:
            table, (who, part) = self._table(), self._belongs()
            for i in range(0, n, BLOCK):
                a = torch.from_numpy(table[i : i + BLOCK].astype(np.float32))
                for j in range(i, n, BLOCK):
                    alike = a @ torch.from_numpy(table[j : j + BLOCK].astype(np.float32)).T
                    rows, columns = (alike >= near).nonzero(as_tuple=True)
                    p, q = rows + i, columns + j
                    apart = (p < q) & ((who[p] != who[q]) | (part[p] != part[q]))
                    for r, c in zip(rows[apart].tolist(), columns[apart].tolist()):
                        across = bool(part[i + r] != part[j + c])
                        pair = self._pair(i + r, j + c, float(alike[r, c]))
                        groups["across_splits" if across else "between_subjects"].add(pair)
                on_progress(min(i + BLOCK, n), n)
        return {name: group.report() for name, group in groups.items()}

    def repeats(self) -> int:
        """Slices that are exactly another one of the same subject and split; empty ones do not count."""
        table = self._table() if len(self) else ()
        seen: set[tuple[str, Split | None, int]] = set()
        count = 0
        for i, digest in enumerate(self._digests):
            key = (*self._volumes[self._volume[i]][1:], digest)
            if table[i].any():
                count += key in seen
                seen.add(key)
        return count

    def _belongs(self) -> tuple[Tensor, Tensor]:
        """Number of the subject and of the split of every slice."""
        volume = torch.tensor(self._volume)
        columns = [[v[k] for v in self._volumes] for k in (1, 2)]
        numbers = [{name: i for i, name in enumerate(dict.fromkeys(c))} for c in columns]
        who, part = (torch.tensor([n[name] for name in c])[volume] for n, c in zip(numbers, columns))
        return who, part

    def _pair(self, p: int, q: int, alike: float) -> dict[str, Any]:
        texts = []
        for index in (p, q):
            name, subject, split = self._volumes[self._volume[index]]
            texts.append(f"{split or 'no split'}: {subject}, {name} slice {self._number[index]}")
        exact = self._digests[p] == self._digests[q]
        return {"a": texts[0], "b": texts[1], "likeness": round(min(alike, 1.0), 4), "exact": exact}


class _Pairs:
    """Counts, and the most alike of them."""

    def __init__(self, keep: int) -> None:
        self.keep, self.exact, self.near = keep, 0, 0
        self.pairs: list[dict[str, Any]] = []

    def add(self, pair: dict[str, Any]) -> None:
        self.exact += pair["exact"]
        self.near += not pair["exact"]
        self.pairs.append(pair)
        if len(self.pairs) > 10 * self.keep:
            self._cut()

    def _cut(self) -> None:
        self.pairs.sort(key=lambda pair: (-pair["exact"], -pair["likeness"]))
        del self.pairs[self.keep :]

    def report(self) -> dict[str, Any]:
        self._cut()
        return {"exact": self.exact, "near": self.near, "pairs": self.pairs}
