"""--solver auto: the choice, said aloud and kept in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medrecon.cli.options import UsageError
from medrecon.cli.show import note

if TYPE_CHECKING:
    from medrecon.core.scan import Scan


def by_itself(
    scan: Scan, solver: str, prior: str | None, mode: str | None, settings: Mapping[str, Any]
) -> tuple[str, str | None, dict[str, str]]:
    """Return solver, prior and what the report says of the choice; a solver that is named stays as it is.

    Raises:
        UsageError: settings or a prior for a solver that is not known yet, or has no use for it.
    """
    from medrecon.pipeline.auto import AUTO, choose

    if solver != AUTO:
        return solver, prior, {}
    if settings or mode:
        raise UsageError("--solver auto: --settings and --mode are those of one solver; name it")
    choice = choose(scan)
    if prior is not None and choice.prior is None:
        raise UsageError(f"--prior {prior}: --solver auto takes {choice.solver}, which has no prior ({choice.why})")
    taken = prior if prior is not None else choice.prior
    note(f"solver {choice.solver}{f' with the prior {taken}' if taken else ''}: {choice.why}")
    return choice.solver, taken, {"chosen": choice.why}
