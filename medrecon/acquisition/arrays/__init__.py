"""From arrays in memory, of NumPy or torch, to a scan: what an array cannot tell is asked for, never guessed."""
