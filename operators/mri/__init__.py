"""k-space of MRI."""
