"""What diffusion solvers share; each solver is a file in the folders below: a guide and its defaults."""
