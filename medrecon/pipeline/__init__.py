"""From a scan to an image: operators, noise, priors and solvers put together, slice by slice."""

from medrecon.pipeline.choose import describe_solvers, make_solver, solver_class, solver_classes
from medrecon.pipeline.prepare import prepare
from medrecon.pipeline.request import Options, Request, RequestError
from medrecon.pipeline.run import reconstruct

__all__ = [
    "Options",
    "Request",
    "RequestError",
    "describe_solvers",
    "make_solver",
    "prepare",
    "reconstruct",
    "solver_class",
    "solver_classes",
]
