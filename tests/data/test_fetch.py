"""Downloads from a server of our own: whole, resumed, refused, and never half a file under its name."""

import hashlib
import http.server
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_folders import manifest

from medrecon.cli import main
from medrecon.data import fetch
from medrecon.data.fetch import OnlyHTTPS, fetch_data

BODY = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        asked = self.headers.get("Range")
        server.asked.append((self.path, asked))
        start = int(re.findall(r"\d+", asked)[0]) if asked and server.ranges else 0
        if self.path == "/secret":
            return self.send_error(403)
        if self.path == "/busy" and len(server.asked) < 3:
            return self.send_error(503)
        if start >= len(BODY):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        cut = start + server.cut if server.cut else None
        self.wfile.write(BODY[start:cut])

    def log_message(self, *args: Any) -> None:
        pass


class ToLocal:
    """Sends what is asked of https://data.test to the server here: `fetch` itself never sees anything but https."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open(self, fullurl: urllib.request.Request, data: None = None, timeout: float | None = None) -> Any:
        assert fullurl.full_url.startswith("https://data.test/")
        url = fullurl.full_url.replace("https://data.test", f"http://127.0.0.1:{self.port}")
        request = urllib.request.Request(url, headers=dict(fullurl.headers))
        return urllib.request.build_opener().open(request, timeout=10)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    found: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.asked, found.ranges, found.cut = [], True, 0
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def get(
    server: Any, folder: Path, name: str = "a/b.zip", url: str = "file", sha256: str = SHA256, size: int = len(BODY)
) -> dict[str, Any]:
    text = f"[[files]]\npath = '{name}'\nurl = 'https://data.test/{url}'\n"
    text += (f"sha256 = '{sha256}'\n" if sha256 else "") + (f"size = {size}\n" if size else "")
    return fetch_data(manifest(folder, text), folder / "out", opener=ToLocal(server.server_port))


def test_a_file_comes_whole_and_only_once(server: Any, tmp_path: Path) -> None:
    assert get(server, tmp_path)["a/b.zip"] == {
        "state": "fetched",
        "bytes": len(BODY),
        "sha256": SHA256,
        "verified": True,
    }
    assert (tmp_path / "out" / "a" / "b.zip").read_bytes() == BODY
    assert get(server, tmp_path)["a/b.zip"]["state"] == "present" and len(server.asked) == 1
    assert [p.name for p in (tmp_path / "out" / "a").iterdir()] == ["b.zip"]
    (tmp_path / "out" / "a" / "b.zip").write_bytes(BODY[:-1] + b"!")
    with pytest.raises(ValueError, match="remove it and fetch again"):
        get(server, tmp_path)


def test_what_is_there_is_not_asked_for_again(server: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.partial").write_bytes(BODY[:1000])
    get(server, tmp_path, "x")
    assert server.asked == [("/file", "bytes=1000-")]
    assert (tmp_path / "out" / "x").read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_of_another_file_is_found_out(server: Any, tmp_path: Path, ranges: bool) -> None:
    """With ranges the hash tells, and the next run starts again; without them it is written from the beginning."""
    server.ranges = ranges
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.partial").write_bytes(b"something else")
    if ranges:
        with pytest.raises(ValueError, match="deleted"):
            get(server, tmp_path, "x")
        assert list((tmp_path / "out").iterdir()) == []
    get(server, tmp_path, "x")
    assert (tmp_path / "out" / "x").read_bytes() == BODY


def test_a_part_that_is_too_long_is_dropped(server: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.partial").write_bytes(BODY + b"more")
    get(server, tmp_path, "x")
    assert (tmp_path / "out" / "x").read_bytes() == BODY


def test_a_connection_that_breaks_goes_on(server: Any, tmp_path: Path) -> None:
    server.cut = 300_000
    get(server, tmp_path, "x")
    assert [asked for _, asked in server.asked] == [None, *(f"bytes={300_000 * i}-" for i in range(1, 5))]
    assert (tmp_path / "out" / "x").read_bytes() == BODY
    get(server, tmp_path, "busy", "busy")  # 503, and then not


def test_one_that_always_breaks_at_once_is_given_up(server: Any, tmp_path: Path) -> None:
    server.ranges, server.cut = False, 1000
    with pytest.raises(OSError, match=r"ended at 1000 of .* run the command again"):
        get(server, tmp_path, "x")
    assert not (tmp_path / "out" / "x").exists()


def test_without_a_hash_nothing_is_resumed_and_it_says_so(server: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.partial").write_bytes(b"something else")
    found = get(server, tmp_path, "x", sha256="", size=0)["x"]
    assert server.asked == [("/file", None)]
    assert found["verified"] is False and found["sha256"] == SHA256


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": "0" * 64}, "sha256 .* the manifest says 000"),
        ({"size": 5}, "manifest says 5"),
        ({"size": len(BODY) + 1}, "manifest says"),
        ({"url": "secret"}, "403 .* needs a login"),
        ({"size": 10**18}, "bytes to fetch"),
    ],
)
def test_what_is_not_right_leaves_no_file(server: Any, tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, OSError), match=complaint):
        get(server, tmp_path, "x", **change)
    assert not (tmp_path / "out" / "x").exists()


def test_links_out_of_the_folder_are_refused(server: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="lies outside"):
        get(server, tmp_path, "link/x")
    assert server.asked == [] and list((tmp_path / "elsewhere").iterdir()) == []


def test_only_https(tmp_path: Path) -> None:
    """Not in a manifest, not in one changed after reading, and not by a redirection."""
    m = manifest(tmp_path, "[[files]]\npath = 'x'\nurl = 'https://data.test/x'\n")
    forged = m.model_copy(update={"files": (m.files[0].model_copy(update={"url": "http://data.test/x"}),)})
    with pytest.raises(ValueError, match="is not https"):
        fetch_data(forged, tmp_path / "out")
    request = urllib.request.Request("https://data.test/x")
    for there in ("http://data.test/y", "ftp://data.test/y", "file:///etc/passwd"):
        with pytest.raises(ValueError, match="not https; not followed"):
            OnlyHTTPS().redirect_request(request, None, 302, "Found", {}, there)
    assert OnlyHTTPS().redirect_request(request, None, 302, "Found", {}, "https://data.test/y").full_url.endswith("y")


def test_what_needs_a_login_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "data_manifests" / "fastmri_knee.toml"
    assert main(["data", "fetch", str(path), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "login needed" in said and "fastmri.med.nyu.edu" in said and "agreement" in said
    assert not (tmp_path / "out").exists()
