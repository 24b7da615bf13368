import numpy as np
import medrecon

row, column = np.mgrid[-64:64, -64:64]
image = 1.0 * ((row / 50) ** 2 + (column / 40) ** 2 < 1) + 0.5 * (row**2 + (column - 10) ** 2 < 200)
coils = np.stack([f(row / 90) * g(column / 90) for f in (np.cos, np.sin) for g in (np.cos, np.sin)])
kspace = np.fft.fft2(coils * image) + 2 * np.random.default_rng(0).normal(size=(4, 128, 128, 2)) @ (1, 1j)
kspace[..., 13:116:2] = 0  # every second column was not measured, but for the lowest frequencies
scan = medrecon.from_kspace(kspace, axes="coil row column", order="fft2", spacing=2.0, noise=2 * 2**0.5)  # mm
volume, report = medrecon.reconstruct(scan, "tv")
print(medrecon.evaluate(volume, volume.like(image))["psnr_db"], report["chi2"])
