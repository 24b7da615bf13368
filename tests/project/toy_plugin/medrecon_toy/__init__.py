"""One of each: a solver, a sampler, an operator, a format and a command."""
