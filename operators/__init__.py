"""Measurement operators: tensors in, tensors out; lengths in mm, angles in rad, attenuation in 1/mm."""

from medrecon.operators.check import check_operator

__all__ = ["check_operator"]
