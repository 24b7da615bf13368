"""A measurement that is read slice by slice: the same images, bit by bit, of a file that must not change meanwhile."""

import os
import shutil
from dataclasses import replace

import pytest
import torch

from medrecon.core.on_disk import OnDisk, each
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.pipeline import reconstruct
from medrecon.runs.record import content
from medrecon.simulate import simulate_ct, simulate_mri, simulate_noncartesian


def _ct(volume, g):
    return simulate_ct(volume("CT"), size=32, views=20, i0=1e4, generator=g)


def _mri(volume, g):
    return replace(simulate_mri(volume("MR"), accel=3, acs=16, generator=g), maps=None)


def _unknown(volume, g):
    """Neither mask nor noise is told, and a coil is dead."""
    scan = _mri(volume, g)
    data = scan.data.clone()
    data[:, 1] = 0
    return replace(scan, data=data, mask=None, noise=None)


def _spokes(volume, g):
    return simulate_noncartesian(volume("MR", 32), pattern="golden", readouts=24, generator=g)


KINDS = {"ct": (_ct, "tv"), "mri": (_mri, "cg-sense"), "unknown": (_unknown, "tv"), "spokes": (_spokes, "cg-sense")}


@pytest.fixture(params=KINDS)
def saved(request, tmp_path, disc_volume, generator):
    make, solver = KINDS[request.param]
    return save_scan(make(disc_volume, generator), tmp_path / "m.h5"), solver


def test_images_and_reports_are_those_of_a_scan_in_memory(saved):
    path, solver = saved
    here, there = load_scan(path), load_scan(path, on_disk=True)
    assert isinstance(there.data, OnDisk) and content(here) == content(there)
    (image, report), (other, again) = (
        reconstruct(scan, solver, settings={"iterations": 5}, batch=2) for scan in (here, there)
    )
    assert torch.equal(image.data, other.data)
    assert {**report, "seconds": 0} == {**again, "seconds": 0}


def test_a_scan_on_disk_is_written_again_to_the_same_bytes(saved, tmp_path):
    path, _ = saved
    again = save_scan(load_scan(path, on_disk=True), tmp_path / "again.h5")
    assert again.read_bytes() == path.read_bytes()


def test_a_file_that_is_replaced_meanwhile_is_an_error(saved):
    path, _ = saved
    scan = load_scan(path, on_disk=True)
    shutil.copy(path, path.with_name("other.h5"))
    os.replace(path.with_name("other.h5"), path)
    with pytest.raises(OSError, match=r"m\.h5: was changed or replaced while it was read"):
        list(each(scan.data))


def test_no_more_than_a_batch_is_read_at_once(saved, monkeypatch):
    path, solver = saved
    scan, most = load_scan(path, on_disk=True), []
    monkeypatch.setattr(OnDisk, "items", lambda x, a, b, old=OnDisk.items: most.append(b - a) or old(x, a, b))
    reconstruct(scan, solver, settings={"iterations": 1}, batch=1)
    assert most and max(most) == 1
