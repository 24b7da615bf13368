"""medrecon reconstructs CT and MRI from undersampled measurements."""

__version__ = "0.1.0"
RESEARCH_USE_ONLY = "RESEARCH USE ONLY - NOT FOR CLINICAL USE"
