"""Which samples of k-space to take."""
