"""What k-space itself tells: its calibration region, its symmetry, and missing samples from acquired ones."""
