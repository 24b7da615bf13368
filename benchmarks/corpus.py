"""Where the corpus of real scans is."""

from __future__ import annotations

import os
from pathlib import Path

CORPUS = Path(os.environ.get("MEDRECON_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
