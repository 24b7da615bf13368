"""How many examples a property test draws: MEDRECON_EXAMPLES=5000 for a thorough run."""

import os


def examples(usual: int) -> int:
    """Return what the environment says, or the usual number."""
    return int(os.environ.get("MEDRECON_EXAMPLES", usual))
