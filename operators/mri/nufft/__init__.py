"""The non-uniform Fourier transform."""
