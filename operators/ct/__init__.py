"""CT operators: line integrals of the attenuation through slices and volumes."""

from medrecon.operators.ct.operator import CTOperator

__all__ = ["CTOperator"]
