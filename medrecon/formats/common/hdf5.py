"""HDF5 files: opened with errors that name the file, made whatever the disk does, datasets of the kind expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medrecon.acquisition.options import OptionError
from medrecon.formats.common.full_disk import PatientFile
from medrecon.formats.common.storage import check_heaps, check_stored


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file that needs no other; what goes wrong while it is read is told with its name.

    Raises:
        ValueError: not HDF5, truncated or damaged, with links to other files, or an error of the block, with the
            file's name in front.
    """
    with reopened(path) as h5:
        check_heaps(path)
        _refuse_other_files(h5)
        yield h5


@contextmanager
def reopened(path: Path) -> Iterator[Any]:
    """As `opened`, without a look at what HDF5 itself does not check: for names and shapes, or a file that was."""
    import h5py

    try:
        with h5py.File(path, "r") as h5:
            yield h5
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not HDF5, truncated or damaged ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error.args[0] if error.args else error}") from error


@contextmanager
def created(path: Path) -> Iterator[Any]:
    """Give a new HDF5 file, whole at `path` when the block ends.

    Raises:
        OSError: it could not be written; the disk is full, say.
    """
    import h5py

    file = PatientFile(path)
    try:
        with h5py.File(file, "w") as h5:
            yield h5
    except (OSError, RuntimeError, ValueError):
        if file.error is None:
            raise
    finally:
        file.close()  # raises what the disk did


def _refuse_other_files(h5: Any) -> None:
    """External links, external storage and virtual datasets would bring in what other files hold.

    Soft links stay within the file, and what they lead to is found where it is, if it is there.
    """
    import h5py

    groups, seen = [h5], {h5py.h5o.get_info(h5.id).addr}
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            where = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{where}: is in another file, {link.filename!r}; {COPY}")
            if isinstance(link, h5py.SoftLink):
                if not _leads_somewhere(group, name):
                    raise ValueError(f"{where}: is a link to {link.path!r}, which is not in the file; copy it whole")
                continue
            item = group[name]
            if (place := h5py.h5o.get_info(item.id).addr) in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
                kind = "a virtual dataset" if item.is_virtual else "in external storage"
                raise ValueError(f"{where}: is {kind}, made of other files; {COPY}")


def _leads_somewhere(group: Any, name: str) -> bool:
    try:
        return group.get(name) is not None
    except (OSError, RuntimeError):  # round in a circle
        return False


COPY = "links are not followed; copy all into one file first (h5repack, or h5py)"


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5 by its signature; a truncated one is."""
    import h5py

    return path.is_file() and bool(h5py.is_hdf5(path))


def holds(path: Path, mark: Callable[[Any], bool]) -> bool:
    """Tell whether this is an HDF5 file that has the mark of a format, in its names; a truncated one has none."""
    if not is_hdf5(path):
        return False
    try:
        with reopened(path) as h5:
            return mark(h5)
    except ValueError:
        return False


def is_dataset(found: Any) -> bool:
    """Tell whether a member of a file is a dataset; None, what is missing, is none."""
    import h5py

    return isinstance(found, h5py.Dataset)


def dataset(h5: Any, key: str, ranks: tuple[int, ...], kinds: str = "iuf", whole: bool = True) -> Any:
    """Return a dataset of real numbers, not read yet.

    Args:
        kinds: "c" for complex ones, "b" for truth values.
        whole: check that all of it was written; else `slices` checks those that are read.

    Raises:
        ValueError: missing, of another kind or rank, or not written whole.
    """
    if key not in h5:
        raise ValueError(f"{key}: missing; the file has {', '.join(map(str, h5)) or 'nothing'}")
    found = h5[key]
    if not is_dataset(found) or found.dtype.kind not in kinds:
        came = found.dtype if is_dataset(found) else "a group"
        raise ValueError(f"{key}: expected a dataset of {'complex ' * (kinds == 'c')}numbers, got {came}")
    if found.ndim not in ranks:
        raise ValueError(f"{key}: expected rank {' or '.join(map(str, ranks))}, got shape {found.shape}")
    if whole:
        check_stored(found, key)
    return found


def slices(stored: Any, key: str, start: int, stop: int) -> Any:
    """Read slices of a dataset, an array.

    Raises:
        ValueError: what is damaged or was never written, and which slice to leave out.
    """
    check_stored(stored, key, (start, stop))
    try:
        return stored[start:stop]
    except (OSError, RuntimeError) as error:
        bad = next((i for i in range(start, stop) if not _readable(stored, i)), start)
        raise ValueError(f"{key}: slice {bad} is damaged ({error}); leave it out with slices") from error


def _readable(stored: Any, index: int) -> bool:
    try:
        stored[index]
    except (OSError, RuntimeError):
        return False
    return True
