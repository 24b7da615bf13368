"""ByViews: operators whose data are views, one after the other, and that can be taken apart into them."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from medrecon.operators.base import LinearOperator
from medrecon.operators.calls import Calls


class ByViews(LinearOperator):
    """An operator to data (..., V, *samples) that can leave out views: what ordered subsets of the views need."""

    @abc.abstractmethod
    def _subset(self, views: Sequence[int]) -> ByViews:
        """The operator of these views only, in the given order; shares what has been built."""

    @property
    def angles(self) -> Sequence[float] | None:
        """Return the direction of each view in rad, to spread subsets evenly; None: take the views as they come."""
        return None

    def subset(self, views: Sequence[int]) -> ByViews:
        """Return the operator of these views only, in the given order.

        It counts its calls with those of the whole operator: an image of some of the views is that share of one.

        Raises:
            ValueError: no view, or one that there is not.
        """
        count = self.out_shape[0]
        if not len(views) or not all(0 <= view < count for view in views):
            raise ValueError(f"{self!r}: expected views of 0 ... {count - 1}, got {list(views)}")
        part = self._subset(views)
        part.calls = Calls(self.calls, len(views) / count)
        return part
