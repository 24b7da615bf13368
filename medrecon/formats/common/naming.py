"""Errors name the file: whatever damage makes of a reader, the user reads one line that says which file it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medrecon.acquisition.options import OptionError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let out only errors that name the file or folder, of a kind that is told in one line.

    Raises:
        ValueError: any error of the block, with the path in front where it was not named yet.
        OSError, ImportError: as they came.
    """
    try:
        yield
    except (OptionError, ImportError, Warning):
        raise
    except MemoryError as error:
        raise ValueError(f"{path}: needs more memory than there is; is a size in it damaged? ({error})") from error
    except (ValueError, OSError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        text = str(error).strip("'\"") or "no more is known"
        raise ValueError(f"{path}: damaged, or not as its format wants it ({type(error).__name__}: {text})") from error


def require_regular(path: Path) -> None:
    """Check that a path is a file or a folder: reading a pipe or a device would wait forever.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: a pipe, a socket or a device.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: is a pipe, a socket or a device; save it as a file first")
