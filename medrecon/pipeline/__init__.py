"""From a scan to an image: operators, noise, priors and solvers put together, slice by slice."""

from medrecon.pipeline.choose import describe_solvers, make_solver, solver_class, solver_classes
from medrecon.pipeline.request import Options, Request
from medrecon.pipeline.run import reconstruct

__all__ = ["Options", "Request", "describe_solvers", "make_solver", "reconstruct", "solver_class", "solver_classes"]
