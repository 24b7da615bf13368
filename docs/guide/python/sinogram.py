import numpy as np
import medrecon
from medrecon.geometry import ParallelGeometry

angles = np.arange(90) * np.pi / 90  # rad
geometry = ParallelGeometry(angles, det_count=160, det_spacing=1.0)  # mm
from_middle = geometry.positions() - (20 * np.cos(angles) + 10 * np.sin(angles))[:, None]  # of a disc at x = 20, y = 10
counts = np.random.default_rng(0).poisson(2e4 * np.exp(-2 * 0.02 * np.sqrt(np.clip(40**2 - from_middle**2, 0, None))))
scan = medrecon.from_sinogram(counts, geometry, flat=2e4, i0=2e4, image_shape=128, spacing=1.0, mu_water=0.02)
volume, report = medrecon.reconstruct(scan, "tv")
print(volume.units, volume.numpy()[0, 53, 83], report["chi2"])  # the disc is water, 0 HU
