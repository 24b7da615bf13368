"""A command."""

from __future__ import annotations

from cyclopts import App

from medrecon.cli.options import Output
from medrecon.cli.show import show_json, show_tree

app = App(name="toy")


@app.default
def toy(word: str, /, *, out: Output = Output()) -> int:
    """Say a word.

    Parameters
    ----------
    word
        what to say
    """
    (show_json if out.json else show_tree)({"toy": word})
    return 0
