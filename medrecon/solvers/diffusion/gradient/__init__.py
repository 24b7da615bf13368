"""Solvers that go back through the networks: the gradient of the misfit, or products with the Jacobian."""
