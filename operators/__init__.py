"""Measurement operators: tensors in, tensors out; lengths in mm, angles in rad, attenuation in 1/mm."""

from medrecon.operators.algebra import Diagonal, Stack, whiten
from medrecon.operators.base import LinearOperator
from medrecon.operators.check import check_operator

__all__ = ["Diagonal", "LinearOperator", "Stack", "check_operator", "whiten"]
