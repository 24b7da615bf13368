"""Foreign networks behind medrecon's contracts."""
