"""solvers: what there is to reconstruct with."""

from __future__ import annotations

from cyclopts import App

from medrecon.cli.options import Output
from medrecon.cli.show import show_json, show_table

app = App(name="solvers")


@app.default
def solvers(*, out: Output = Output()) -> int:
    """List the solvers: name, modalities, whether they need a trained prior, one line each."""
    from medrecon.pipeline import describe_solvers

    rows = describe_solvers()
    if out.json:
        show_json(rows)
    else:
        show_table(
            [{**row, "modalities": ", ".join(row["modalities"])} for row in rows],
            ("name", "modalities", "needs_prior", "summary"),
        )
    return 0
