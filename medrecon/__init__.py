"""medrecon reconstructs CT and MRI from undersampled measurements."""

__version__ = "0.1.0"
