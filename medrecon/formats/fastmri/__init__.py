"""fastMRI HDF5."""
