"""solvers: what there is to reconstruct with, and what can be set of it."""

from __future__ import annotations

from cyclopts import App

from medrecon.cli.options import Output, UsageError
from medrecon.cli.show import number, show_json, show_table, show_tree

app = App(name="solvers")


@app.default
def solvers(name: str | None = None, /, *, out: Output = Output()) -> int:
    """List the solvers, one line each; or show one of them: its source, its settings and what they mean.

    Parameters
    ----------
    name
        a solver, whose settings are shown with type, default, published value and meaning; recon takes them as
        --settings.NAME VALUE
    """
    if name is not None:
        return show_solver(name, out)
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


def show_solver(name: str, out: Output) -> int:
    """Show one solver.

    Raises:
        UsageError: an unknown name; tells the nearest.
    """
    from medrecon.pipeline.choose import nearest, solver_classes
    from medrecon.pipeline.settings_help import describe_solver

    known = solver_classes()
    if name not in known:
        raise UsageError(f"unknown solver {name!r}{nearest(name, known)}")
    told = describe_solver(known[name])
    if out.json:
        show_json(told)
        return 0
    settings = told.pop("settings")
    show_tree({**told, "modalities": ", ".join(told["modalities"])})
    if not settings:
        show_tree({"settings": "none"})
        return 0
    columns = ("setting", "type", "default", *(["published"] if "published" in settings[0] else []), "meaning")
    rows = [{**row, "setting": f"--settings.{row['name']}"} for row in settings]
    for row in rows:
        row |= {key: "none" if row[key] is None else number(row[key]) for key in ("default", "published") if key in row}
    show_table(rows, columns)
    return 0
