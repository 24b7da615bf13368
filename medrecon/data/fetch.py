"""Downloads of what a manifest allows: HTTPS only, resumed, verified, and named only when whole."""

from __future__ import annotations

import os
import shutil
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

from medrecon import __version__
from medrecon.core import atomic, checksum
from medrecon.core.progress import OnProgress, silent
from medrecon.data.manifest import File, Manifest

BLOCK = 1 << 20
ATTEMPTS = 4


class Opener(Protocol):
    """What fetch asks for connections; urllib's OpenerDirector is one."""

    def open(self, fullurl: urllib.request.Request, data: None = None, timeout: float | None = None) -> Any: ...


class OnlyHTTPS(urllib.request.HTTPRedirectHandler):
    """Refuses to be sent to anything but https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise ValueError(f"{req.full_url}: sends on to {newurl}, which is not https; not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_data(
    manifest: Manifest, folder: Path, on_progress: OnProgress = silent, opener: Opener | None = None
) -> dict[str, Any]:
    """Download the manifest's files into `folder`; those that are there and right are left alone.

    Returns:
        {path: {"state": "fetched" | "present", "bytes", "sha256", "verified"}}; `verified` is false where the manifest
        has no sha256: the one found is given, to be compared with the source and written down.

    Raises:
        ValueError: nothing to fetch (how to get the data instead), not HTTPS, a path outside `folder`, or a file
            that is not what the manifest says.
        OSError: the server, the network or the disk.
    """
    open_ones = [file for file in manifest.files if file.url]
    if not open_ones:
        raise ValueError(f"{manifest.path}: {manifest.name} cannot be fetched: {how_to_get(manifest)}")
    opener = opener or urllib.request.build_opener(OnlyHTTPS())
    result = {}
    for file in open_ones:
        result[file.path] = _fetch(file, _target(folder, file), opener, on_progress)
    return result


def how_to_get(manifest: Manifest) -> str:
    """Access, address and licence, for people."""
    doi = f"https://doi.org/{manifest.doi}" if manifest.doi else ""
    return f"{manifest.access or 'see its page'} ({manifest.url or doi or 'no address'}; licence: {manifest.licence})"


def _target(folder: Path, file: File) -> Path:
    path = folder / file.path
    if not path.resolve().is_relative_to(folder.resolve()):  # through a link
        raise ValueError(f"{file.path}: lies outside {folder}")
    if not file.url.startswith("https://"):
        raise ValueError(f"{file.path}: {file.url} is not https")
    return path


def _fetch(file: File, path: Path, opener: Opener, on_progress: OnProgress) -> dict[str, Any]:
    if path.exists():
        return _verified(file, path, "present")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    if not file.sha256:
        partial.unlink(missing_ok=True)  # nothing would tell whether the rest is of the same file
    room = shutil.disk_usage(path.parent).free + (partial.stat().st_size if partial.exists() else 0)
    if file.size is not None and room < file.size:
        raise OSError(f"{path}: {file.size} bytes to fetch, {room} free")
    _until_whole(file, partial, opener, on_progress)
    result = _verified(file, partial, "fetched")
    os.replace(partial, path)
    return result


def _until_whole(file: File, partial: Path, opener: Opener, on_progress: OnProgress) -> None:
    """Downloads, and goes on after failures; gives up after ATTEMPTS that brought nothing new."""
    most, failures = 0, 0
    while True:
        try:
            return _download(file, partial, opener, on_progress)
        except urllib.error.HTTPError as error:
            reason: Exception = error
            if error.code < 500 and error.code != 429:
                login = "; it needs a login" if error.code in (401, 403) else ""
                raise OSError(f"{file.url}: {error.code} {error.reason}{login}") from error
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in atomic.FULL:
                raise OSError(error.errno, f"{partial}: {error.strerror}; make space, and run it again") from error
            reason = error
        have = partial.stat().st_size if partial.exists() else 0
        failures = 0 if have > most else failures + 1
        most = max(most, have)
        if failures == ATTEMPTS:
            raise OSError(f"{file.url}: {reason}; run the command again to go on") from reason
        time.sleep(0.1 * 4**failures)


def _download(file: File, partial: Path, opener: Opener, on_progress: OnProgress) -> None:
    """The rest of a file, behind what is there of it."""
    have = partial.stat().st_size if partial.exists() else 0
    if have and have == file.size:
        return
    headers = {"User-Agent": f"medrecon/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(file.url, headers=headers)
    try:
        answer = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        partial.unlink()  # longer than the file: not of it
        raise OSError("the part that was here does not fit; starting again") from error
    with answer:
        resumed = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        if answer.status == 206 and not resumed:
            raise OSError(f"asked for bytes from {have}, got {answer.headers.get('Content-Range')}")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else file.size or 0
        with partial.open("ab" if resumed else "wb") as stream:
            while block := answer.read(BLOCK):
                stream.write(block)
                have += len(block)
                if file.size is not None and have > file.size:
                    break
                on_progress(have, max(total, have))
            stream.flush()
            os.fsync(stream.fileno())
        if total and have < total:
            raise OSError(f"the connection ended at {have} of {total} bytes")


def _verified(file: File, path: Path, state: str) -> dict[str, Any]:
    size, sha256 = path.stat().st_size, checksum.of_file(path)
    wrong = ""
    if file.size is not None and size != file.size:
        wrong = f"{size} bytes, and the manifest says {file.size}"
    elif file.sha256 and sha256 != file.sha256:
        wrong = f"sha256 {sha256}, and the manifest says {file.sha256}"
    if wrong:
        if state == "fetched":
            path.unlink()
            raise ValueError(f"{file.url}: {wrong}; deleted. Has the file changed at its source?")
        raise ValueError(f"{path}: {wrong}; remove it and fetch again")
    return {"state": state, "bytes": size, "sha256": sha256, "verified": bool(file.sha256)}
