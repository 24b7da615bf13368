"""Mathematics that knows no scanner: linear algebra, Fourier transforms, spectra."""
