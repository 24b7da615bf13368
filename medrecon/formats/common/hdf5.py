"""HDF5 files: opened with errors that name the file, and datasets of the kind that is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medrecon.acquisition.options import OptionError


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file; what goes wrong while it is read is told with its name.

    Raises:
        ValueError: not HDF5, truncated or damaged, or an error of the block, with the file's name in front.
    """
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


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5 by its signature; a truncated one is."""
    import h5py

    return path.is_file() and bool(h5py.is_hdf5(path))


def holds(path: Path, mark: Callable[[Any], bool]) -> bool:
    """Tell whether this is an HDF5 file that has the mark of a format; a truncated one has none."""
    if not is_hdf5(path):
        return False
    try:
        with opened(path) as h5:
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
        ValueError: missing, or of another kind or rank.
    """
    if key not in h5:
        raise ValueError(f"{key}: missing; the file has {', '.join(map(str, h5)) or 'nothing'}")
    found = h5[key]
    if not is_dataset(found) or found.dtype.kind not in kinds:
        came = found.dtype if is_dataset(found) else "a group"
        raise ValueError(f"{key}: expected a dataset of {'complex ' * (kinds == 'c')}numbers, got {came}")
    if found.ndim not in ranks:
        raise ValueError(f"{key}: expected rank {' or '.join(map(str, ranks))}, got shape {found.shape}")
    return found
