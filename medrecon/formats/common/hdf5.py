"""HDF5 files: opened with errors that name the file, made in memory, datasets of the kind that is expected."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medrecon.acquisition.options import OptionError
from medrecon.formats.common.storage import check_heaps, check_stored


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file that needs no other; what goes wrong while it is read is told with its name.

    Raises:
        ValueError: not HDF5, truncated or damaged, with links to other files, or an error of the block, with the
            file's name in front.
    """
    with _opened(path) as h5:
        check_heaps(path)
        _refuse_other_files(h5)
        yield h5


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """As `opened`, without a look at what HDF5 itself does not check: for names and shapes alone."""
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
    """Give an HDF5 file in memory, which is written to `path` when the block ends.

    HDF5 itself must not meet a full disk: a file whose last flush failed cannot be closed, and the process dies of it.

    Raises:
        OSError: it could not be written; the disk is full, say.
    """
    import h5py

    image = io.BytesIO()
    with h5py.File(image, "w") as h5:
        yield h5
    free, size = shutil.disk_usage(path.parent).free, image.getbuffer().nbytes
    with path.open("wb") as stream:
        if size > free:
            raise OSError(28, f"{size / 1e6:.1f} MB to write, {free / 1e6:.1f} MB free", str(path))
        stream.write(image.getbuffer())


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
                if group.get(name) is None:
                    raise ValueError(f"{where}: is a link to {link.path!r}, which is not in the file; it is incomplete")
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
        with _opened(path) as h5:
            return mark(h5)
    except ValueError:
        return False


def is_dataset(found: Any) -> bool:
    """Tell whether a member of a file is a dataset; None, what is missing, is none."""
    import h5py

    return isinstance(found, h5py.Dataset)


def dataset(h5: Any, key: str, ranks: tuple[int, ...], kinds: str = "iuf") -> Any:
    """Return a dataset of real numbers, not read yet; `kinds`: "c" for complex ones, "b" for truth values.

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
    check_stored(found, key)
    return found
