"""The training store: values, order, resuming after a kill, damage, and training from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import manifest, nifti
from dicom_maker import make_series, values

from medrecon import formats
from medrecon.data import build
from medrecon.data.build import build_store
from medrecon.data.manifest import Manifest, load_manifest
from medrecon.data.shard import HEADER, ShardWriter, npy_header
from medrecon.data.store import Store
from medrecon.data.values import COUNTS
from medrecon.training.images.sources import load_slices

MR = "kind = 'nifti'\nroot = 'd'\n[split]\nval = ['s4']\ntest = ['s5']\n"


def mri(folder: Path, count: int = 6) -> Manifest:
    for i in range(count):
        nifti(folder / "d" / f"s{i}" / "t1.nii.gz", seed=i, slices=2 + i % 2)
    m = manifest(folder, MR)
    text = (folder / "m.toml").read_text().replace('"CT"', '"MR"').replace('"HU"', '"a.u."')
    (folder / "m.toml").write_text(text)
    return load_manifest(m.path)


def test_ct_is_whole_hu_in_order(tmp_path: Path) -> None:
    make_series(tmp_path / "d" / "train" / "p1", 5, PatientID="A")
    make_series(tmp_path / "d" / "val" / "p2", 3, PatientID="B")
    m = manifest(tmp_path, "kind = 'dicom'\nroot = 'd'\ntrain = 'train'\nval = 'val'\n")
    summary = build_store(m, tmp_path / "store")
    assert summary["train"]["slices"] == 5 and summary["val"]["slices"] == 3 and summary["skipped"] == {}
    store = Store(tmp_path / "store")
    (shard,) = store.split("train")
    assert store.slope == 1.0 and torch.equal(shard.data.long(), torch.from_numpy(values(5, (12, 16))))
    places = list(shard.places())
    assert [(p.subject, p.number, p.count) for p in places] == [("p1", i, 5) for i in range(5)]
    first = formats.read(tmp_path / "d" / places[0].file).data[0]
    assert torch.equal(first.long(), torch.from_numpy(values(5, (12, 16))[0]))  # the file named is the slice's
    assert np.array_equal(np.load(shard.path, allow_pickle=False), shard.data.numpy())


def test_mr_keeps_the_scale_of_each_volume(tmp_path: Path) -> None:
    m = mri(tmp_path)
    build_store(m, tmp_path / "store")
    store = Store(tmp_path / "store")
    (shard,) = store.split("val")
    original = formats.read(tmp_path / "d" / "s4" / "t1.nii.gz", modality="MR").data
    scale = next(shard.places()).scale
    assert float((shard.data * store.slope * scale - original).abs().max()) <= scale / COUNTS / 2 * 1.01
    # To training it is what the files themselves are.
    slices = load_slices(load_manifest(tmp_path / "store" / "manifest.toml"), "train", 16)
    assert slices.subjects == ("s0",) * 2 + ("s1",) * 3 + ("s2",) * 2 + ("s3",) * 3
    (tmp_path / "d" / "part").mkdir()
    for i in range(4):
        (tmp_path / "d" / f"s{i}").rename(tmp_path / "d" / "part" / f"s{i}")
    text = (tmp_path / "m.toml").read_text().partition("[split]")[0] + "train = 'part'\n"
    (tmp_path / "files.toml").write_text(text)
    direct = load_slices(load_manifest(tmp_path / "files.toml"), "train", 16)
    assert torch.equal(slices.values(slice(None)), direct.values(slice(None)))


def test_sizes_and_full_shards_are_apart(tmp_path: Path) -> None:
    m = mri(tmp_path)
    summary = build_store(m, tmp_path / "small", size=8, shard_bytes=1)
    assert summary["train"]["shards"] == [f"train-00{i}.npy {n}x8x8" for i, n in enumerate((2, 3, 2, 3))]
    make_series(tmp_path / "c" / "a", 2, size=(12, 16))
    make_series(tmp_path / "c" / "b", 2, size=(10, 10))
    m = manifest(tmp_path, "kind = 'dicom'\nroot = 'c'\n[split]\n")
    shards = Store(Path(build_store(m, tmp_path / "ct")["store"])).split("train")
    assert sorted(s.shape for s in shards) == [(2, 10, 10), (2, 12, 16)]


class Killed(BaseException):
    """As a signal would end it: no handler may take it for a bad file."""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("where", ["append", "_write_line", "finish", "_write_index"])
@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_index_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, torn: bool) -> None:
    """Killed before or after a volume's bytes, in its journal line, or at the end: the same store to the byte."""
    m = mri(tmp_path)
    build_store(m, tmp_path / "whole")
    owner = ShardWriter if where in ("append", "finish") else build
    real, calls = getattr(owner, where), []

    def dies(*args: object) -> object:
        calls.append(where)
        if len(calls) == (1 if where in ("finish", "_write_index") else 3):
            if torn and where != "_write_line":
                real(*args)  # its bytes are there, what follows is not
            elif torn:
                args[0].write(b'{"case": "half a li')  # type: ignore[attr-defined]
                args[0].flush()  # type: ignore[attr-defined]
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, where, dies)
        with pytest.raises(Killed):
            build_store(m, tmp_path / "cut")
    if not (torn and where == "_write_index"):
        with pytest.raises(FileNotFoundError, match="not finished"):
            Store(tmp_path / "cut")
    read: list[str] = []
    reads = build.read_case
    monkeypatch.setattr(build, "read_case", lambda case, m: (read.append(case.name), reads(case, m))[1])
    build_store(m, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert len(read) == {"append": 4, "_write_line": 5}.get(where, 0)  # only what was not completed


def test_an_interrupted_index_of_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = mri(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "finish", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            build_store(m, tmp_path / "cut")
    with pytest.raises(ValueError, match="begun with other data or settings"):
        build_store(m, tmp_path / "cut", size=8)
    nifti(tmp_path / "d" / "s9" / "t1.nii.gz")
    with pytest.raises(ValueError, match="begun with other data or settings"):
        build_store(m, tmp_path / "cut")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    m = mri(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="not empty"):
        build_store(m, tmp_path / "mine")
    first = build_store(m, tmp_path / "store")
    assert build_store(m, tmp_path / "store") == first  # finished: nothing to do
    with pytest.raises(FileExistsError, match="other data or settings"):
        build_store(m, tmp_path / "store", size=8)


def test_damaged_shards_are_found(tmp_path: Path) -> None:
    m = mri(tmp_path)
    build_store(m, tmp_path / "store")
    store = Store(tmp_path / "store")
    assert store.damaged() == {}
    path = tmp_path / "store" / "train-000.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert list(store.damaged()) == ["train-000.npy"]
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"train-000\.npy: missing or damaged"):
        _ = Store(tmp_path / "store").split("train")[0].data
    path.unlink()
    assert store.damaged() == {"train-000.npy": "missing"}


def test_an_index_cannot_lead_elsewhere(tmp_path: Path) -> None:
    build_store(mri(tmp_path), tmp_path / "store")
    path = tmp_path / "store" / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0]["file"] = "../../etc/passwd"
    path.write_text(json.dumps(index))
    assert all(shard.path.parent == tmp_path / "store" for shard in Store(tmp_path / "store").shards)
    path.write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(ValueError, match="not an index this version reads"):
        Store(tmp_path / "store")


def test_a_bad_file_is_left_out_by_name_and_a_leak_stops_all(tmp_path: Path) -> None:
    m = mri(tmp_path)
    (tmp_path / "d" / "s1" / "t1.nii.gz").write_bytes(b"no gzip")
    summary = build_store(m, tmp_path / "store")
    assert list(summary["skipped"]) == ["s1/t1.nii.gz"] and summary["train"]["volumes"] == 3
    for split in ("train", "val"):
        make_series(tmp_path / "c" / split / f"{split}1", 2, PatientID="same")
    m = manifest(tmp_path, "kind = 'dicom'\nroot = 'c'\ntrain = 'train'\nval = 'val'\n")
    with pytest.raises(ValueError, match=r"in two splits: \['PatientID [0-9a-f]{12}: train, val'\]"):
        build_store(m, tmp_path / "leak")
    assert not (tmp_path / "leak").exists()


@pytest.mark.parametrize("shape", [(1, 8, 8), (123456, 512, 512), (10**9, 65536, 65536)])
def test_header_is_numpys(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    header = npy_header(shape)
    assert len(header) == HEADER
    (tmp_path / "x.npy").write_bytes(header)
    with (tmp_path / "x.npy").open("rb") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        assert np.lib.format.read_array_header_1_0(stream) == (shape, False, np.dtype("<i2"))
        assert stream.tell() == HEADER


def test_corpus_store_is_what_training_read_before(corpus: Path, tmp_path: Path) -> None:
    """The validation sheets, HU and 8 bit, through a store and directly."""
    for name, tolerance in (("ct", 0.0), ("mri", 0.5001 / COUNTS)):
        m = load_manifest(Path(__file__).parents[2] / "data_manifests" / f"corpus_{name}.toml")
        alone = m.model_copy(update={"train": None})
        alone._path = m.path
        build_store(alone, tmp_path / name, root=corpus)
        stored = load_slices(load_manifest(tmp_path / name / "manifest.toml"), "val", 256)
        direct = load_slices(m, "val", 256, corpus)
        assert sorted(stored.subjects) == sorted(direct.subjects)
        assert float((stored.values(slice(None)) - direct.values(slice(None))).abs().max()) <= tolerance


def test_sheets_through_a_store_are_the_sheets(tmp_path: Path) -> None:
    """Two subjects in one sheet; frames that the index does not name are left out; train and val reach the training."""
    from PIL import Image

    from medrecon.training.config import TrainConfig
    from medrecon.training.run import load_data

    pixels = np.random.default_rng(0).integers(0, 4000, (4, 16, 16)).astype(np.uint16)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels.reshape(-1, 16)).save(tmp_path / split / "s.png")
        rows = "".join(f"s.png\t{i}\tx\t{split}{i % 2}\n" for i in range(3))
        (tmp_path / split / "index.tsv").write_text("sheet\tframe\tsource\tsubject\n" + rows)
    text = "kind = 'sheets'\nintercept = -1024.0\ntrain = 'train'\nval = 'val'\nsubject = 'index.tsv'\n"
    build_store(manifest(tmp_path, text), tmp_path / "store")
    config = TrainConfig.model_validate(
        {
            "manifest": tmp_path / "store" / "manifest.toml",
            "modality": "CT",
            "size": 16,
            "values": {"type": "asinh"},
            "windows": {"full": {"low": -1024, "high": 3071}},
            "autoencoder": {"crop": 16},
        }
    )
    train, held_out = load_data(config)
    assert train.subjects == ("x/train0", "x/train0", "x/train1") and held_out.subjects[0] == "x/val0"
    assert torch.equal(train.values(slice(None)), torch.from_numpy(pixels[[0, 2, 1]].astype(np.float32)) - 1024)


def test_damaged_sheets_are_left_out_by_name(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "s.png").write_bytes(b"no picture")
    (tmp_path / "train" / "index.tsv").write_text("sheet\tframe\tsource\tsubject\ns.png\t0\tx\ta\n")
    m = manifest(tmp_path, "kind = 'sheets'\ntrain = 'train'\nsubject = 'index.tsv'\n")
    with pytest.raises(ValueError, match=r"no volume could be read; first: .*s\.png"):
        build_store(m, tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(slope=[1]), "slope"),
        (lambda index: index.update(slope=0), "slope"),
        (lambda index: index.pop("slope"), "slope"),
        (lambda index: index.update(shards=3), "shards"),
        (lambda index: index["shards"][0].update(shape=[1, 2]), "shards.0.shape"),
        (lambda index: index["shards"][0].update(split="all"), "shards.0.split"),
        (lambda index: index["shards"][0].pop("sha256"), "shards.0.sha256"),
        (lambda index: index["shards"][0]["volumes"][0].update(count=1), "begins at slice|have 1 slices"),
        (lambda index: index["shards"][0]["volumes"][0].update(start="0"), "volumes.0.start"),
        (lambda index: index["shards"][0]["volumes"][0].update(scale=-1.0), "volumes.0.scale"),
        (lambda index: index["shards"][0]["volumes"][0].update(files=[]), "volumes.0.files"),
        (lambda index: index["shards"][0]["volumes"][0].update(subject=None), "volumes.0.subject"),
    ],
)
def test_a_wrong_index_names_file_and_key(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    build_store(mri(tmp_path, 6), tmp_path / "store")
    path = tmp_path / "store" / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message) as error:
        Store(tmp_path / "store")
    assert "index.json: not an index this version reads" in str(error.value)


def test_an_index_that_a_dead_run_had_committed_is_finished(tmp_path: Path) -> None:
    """Killed before the last rename: everything is there but the name of index.json."""
    m = mri(tmp_path)
    first = build_store(m, tmp_path / "store")
    committed = tmp_path / "store" / ".partial-0" / "committed"
    committed.mkdir(parents=True)
    (committed.parent / "lock").touch()
    (tmp_path / "store" / "index.json").rename(committed / "index.json")
    (tmp_path / "store" / "journal.jsonl").touch()
    assert build_store(m, tmp_path / "store") == first
    assert not list((tmp_path / "store").glob(".partial-*")) and not (tmp_path / "store" / "journal.jsonl").exists()
