"""medrecon reconstructs CT and MRI from undersampled measurements."""

__version__ = "0.1.0"
RESEARCH_USE_ONLY = "RESEARCH USE ONLY - NOT FOR CLINICAL USE"

_AT_HOME = {
    "LinearOperator": "medrecon.operators.base",
    "Measurement": "medrecon.core.measurement",
    "evaluate": "medrecon.quality.evaluate",
    "from_kspace": "medrecon.acquisition.arrays.kspace",
    "from_sinogram": "medrecon.acquisition.arrays.sinogram",
    "load_prior": "medrecon.models.store",
    "reconstruct": "medrecon.pipeline.run",
}
"""What is called most, and where it is; `__init__.pyi` tells it to type checkers and editors. Imported where it is used
(PEP 562): torch takes a second."""


def __getattr__(name: str) -> object:
    if name not in _AT_HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; at the top are {', '.join(_AT_HOME)}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_AT_HOME[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_AT_HOME})
