"""What is kept is what was solved, to the last bit, and of this run alone."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scans import ct, mri, radial

from medrecon.core.scan import Scan
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.pipeline.part import Part, joined
from medrecon.pipeline.request import Options
from medrecon.runs import Differs, Kept, Task, Work, discard, drop_finished
from medrecon.runs.record import content


def part(start: int, stop: int) -> Part:
    g = torch.Generator().manual_seed(start)
    items = range(start, stop)
    return Part(
        start,
        stop,
        torch.randn(stop - start, 5, 4, generator=g),
        chi2={i: 1 / (3 + i) for i in items},
        histories=[(stop - start, [0.1 + start, 1 / 3])],
        unfinished=[start],
        failed={stop - 1: ValueError("no\n signal")},
        calls=Counter({"A": 7}),
        network=Counter({"denoiser": 3}),
        seconds=0.1,
    )


def same(a: Part, b: Part) -> bool:
    fields = ("start", "stop", "chi2", "histories", "unfinished", "calls", "network", "seconds")
    return torch.equal(a.values, b.values) and all(getattr(a, f) == getattr(b, f) for f in fields)


def test_a_batch_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "x.slices", {"seed": 0})
    kept.save(part(2, 5))
    found = kept.load(slice(2, 5))
    assert same(found, part(2, 5)) and str(found.failed[4]) == "no signal"
    assert kept.holds(slice(2, 5)) and not kept.sound(slice(2, 5)) and not kept.holds(slice(2, 4))
    assert {item.name for item in kept.folder.iterdir()} == {"record.json", "000002-000005.part"}
    with pytest.raises(FileNotFoundError):
        kept.load(slice(0, 2))


def test_parts_are_joined_in_their_order() -> None:
    whole = joined([part(0, 2), part(2, 5)])
    assert (whole.start, whole.stop, whole.calls, whole.seconds) == (0, 5, Counter({"A": 14}), 0.2)
    assert torch.equal(whole.values, torch.cat([part(0, 2).values, part(2, 5).values]))
    assert whole.unfinished == [0, 2] and set(whole.failed) == {1, 4} and len(whole.chi2) == 5
    for wrong in ([], [part(0, 2), part(3, 5)], [part(2, 5), part(0, 2)]):
        with pytest.raises(ValueError, match="neighbouring"):
            joined(wrong)


@pytest.mark.parametrize("damage", ["flip", "cut", "other"])
def test_a_damaged_batch_is_named(damage: str, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "x.slices", {})
    kept.save(part(0, 2))
    file = kept.folder / "000000-000002.part"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes({"flip": bytes(content), "cut": bytes(content[:-9]), "other": b"x"}[damage])
    with pytest.raises(ValueError, match=r"000000-000002.part: damaged .* remove it"):
        kept.load(slice(0, 2))


def record(scan: Scan, **options: object) -> dict[str, object]:
    given: dict[str, object] = {"settings": {"iterations": 3}, **options}
    solver = str(given.pop("solver", "cgls" if scan.modality == "ct" else "cg-sense"))
    return Work.of(Task(Path("x.h5"), lambda path: scan, solver, Options(**given))).record  # type: ignore[typeddict-item]


def test_all_that_the_result_depends_on_is_in_the_record(tmp_path: Path) -> None:
    scan = ct()
    folder = tmp_path / "x.slices"
    Kept(folder, record(scan)).save(part(0, 2))
    Kept(folder, record(ct()))  # the same again
    one = scan.data.clone()
    one[3, 2, 1] += 1e-3
    assert scan.noise is not None and scan.mu_water is not None
    others = {
        "seed was 0 and is 1": record(scan, seed=1),
        "iterations was 3 and is 4": record(scan, settings={"iterations": 4}),
        'solver was "cgls" and is "sirt"': record(scan, solver="sirt"),
        "batch was 8 and is 2": record(scan, batch=2),
        "slices was [0, 4] and is [1, 4]": record(scan, slices=(1, 4)),
        "measurement was": record(replace(scan, data=one)),
    }
    shifted = scan.affine.clone()
    shifted[0, 3] += 1
    for change in ({"affine": shifted}, {"mu_water": 0.02}, {"noise": None}, {"units": "1/mm"}):
        others[f"measurement was {change}"] = record(replace(scan, **change))  # type: ignore[arg-type]
    for said, other in others.items():
        with pytest.raises(Differs) as caught:
            Kept(folder, other)
        assert said.partition("{")[0] in str(caught.value) and "--no-resume" in str(caught.value)
    assert Kept(folder, record(scan)).holds(slice(0, 2)), "refusing loses nothing"
    anew = Kept(folder, others["seed was 0 and is 1"], anew=True)
    assert not anew.holds(slice(0, 2))


def test_the_card_of_a_prior_is_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReSample's steps are the card's unless they are said: a card that was edited is another run."""
    found = []
    for card in ({"sha256": "0", "steps": 3}, {"sha256": "0", "steps": 4}):
        given = Prior(
            IdentityAutoencoder(), smooth_gaussian((1, 12, 10)), Linear(-1000, 1000), "HU", "CT", 0.01, card=card
        )
        monkeypatch.setattr("medrecon.models.store.load_prior", lambda name, device, given=given: given)
        found.append(record(ct(), solver="resample", settings={}))
    assert found[0] != found[1] and found[0]["settings"] == found[1]["settings"]


def test_the_digest_of_a_scan_is_of_all_that_was_measured() -> None:
    scan, spokes = mri(per_slice_mask=True), radial()
    assert scan.mask is not None and scan.noise is not None
    maps = torch.ones(scan.data.shape, dtype=torch.complex64)
    turned = replace(spokes.geometry, samples=spokes.geometry.samples.flip(0))  # type: ignore[union-attr]
    scans = [
        scan,
        replace(scan, mask=scan.mask | ~scan.mask),
        replace(scan, maps=maps),
        replace(scan, maps=1j * maps),
        replace(scan, noise=None),
        spokes,
        replace(spokes, geometry=turned),
    ]
    found = [content(each) for each in scans]
    assert len(set(found)) == len(found)
    assert content(mri(per_slice_mask=True)) == found[0]
    assert content(replace(scan, provenance={"told": "otherwise"})) == found[0]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "x.slices"
    folder.mkdir()
    (folder / "thesis.docx").write_text("years")
    for act in (lambda: Kept(folder, {}), lambda: Kept(folder, {}, anew=True), lambda: discard(folder)):
        with pytest.raises(ValueError, match=r"holds 'thesis.docx', which medrecon did not write"):
            act()
    assert (folder / "thesis.docx").read_text() == "years" and len(list(folder.iterdir())) == 1


def test_batches_without_a_record_are_of_no_run(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "x.slices", {"seed": 0})
    kept.save(part(0, 2))
    (kept.folder / "record.json").unlink()  # as by a run that was killed while it discarded them
    assert not Kept(kept.folder, {"seed": 1}).holds(slice(0, 2))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "x.slices", {"seed": 0})
    for text in ("{", "[1]"):
        (kept.folder / "record.json").write_text(text)
        with pytest.raises(ValueError, match=r"record.json: damaged .*--no-resume"):
            Kept(kept.folder, {"seed": 0})
        assert not Kept(kept.folder, {"seed": 0}, anew=True).holds(slice(0, 2))


def test_what_a_killed_run_left_beside_its_output_goes(tmp_path: Path) -> None:
    """Only where the output was written after all batches were there."""
    output = tmp_path / "x.nii"
    kept = Kept(tmp_path / "x.slices", {})
    output.write_text("old")
    drop_finished(kept.folder, output)
    assert kept.folder.exists(), "not finished"
    kept.finish(output)
    old = kept.folder.stat().st_mtime_ns - 10**9
    os.utime(output, ns=(old, old))
    drop_finished(kept.folder, output)
    assert kept.folder.exists(), "the output is an older one"
    output.write_text("new")
    drop_finished(kept.folder, output)
    assert not kept.folder.exists() and output.exists()
