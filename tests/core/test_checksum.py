"""Digests depend on what is in an array, not on where and how it lies."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from medrecon.core import checksum


def test_the_known_digest(tmp_path: Path) -> None:
    """FIPS 180-2, appendix B.1."""
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert checksum.of_file(tmp_path / "abc") == checksum.of_content("abc") == checksum.of_content("a", "bc") == known


def test_strides_and_conjugation_do_not_matter() -> None:
    values = torch.randn(4, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    same = values.T.contiguous().T, values.conj().resolve_conj().conj(), values.numpy()
    assert {checksum.of_content(v) for v in same} == {hashlib.sha256(values.numpy().tobytes()).hexdigest()}
    assert checksum.of_content(values.conj()) != checksum.of_content(values)
    assert checksum.of_content(np.zeros(2), "a") != checksum.of_content("a", np.zeros(2))
