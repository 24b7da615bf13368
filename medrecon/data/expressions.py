"""Regular expressions of a manifest, which may be somebody else's: one that never ends is found before it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 10.0
"""For all files of a data set together; ordinary expressions take microseconds a file."""
SEARCH = "import json, re, sys; key, texts = json.load(sys.stdin); [re.search(key, text) for text in texts]"


def check_ends(expression: str, texts: Sequence[str]) -> None:
    """Search all texts in another process, which is ended where it takes too long.

    Raises:
        ValueError: it took longer than `SECONDS`.
    """
    given = json.dumps([expression, list(texts)])
    try:
        subprocess.run([sys.executable, "-I", "-S", "-c", SEARCH], input=given, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"the expression {expression!r} takes more than {SECONDS:g} s for {len(texts)} names; repeats within "
            f"repeats, such as (a+)+, never end"
        ) from error
