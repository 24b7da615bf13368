from medrecon.acquisition.arrays.kspace import from_kspace as from_kspace
from medrecon.acquisition.arrays.sinogram import from_sinogram as from_sinogram
from medrecon.core.measurement import Measurement as Measurement
from medrecon.models.store import load_prior as load_prior
from medrecon.operators.base import LinearOperator as LinearOperator
from medrecon.pipeline.run import reconstruct as reconstruct
from medrecon.quality.evaluate import evaluate as evaluate

__version__: str
RESEARCH_USE_ONLY: str
