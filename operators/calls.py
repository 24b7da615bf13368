"""Calls: how many images an operator was applied to."""

from __future__ import annotations

from collections import Counter


class Calls:
    """Images that an operator projected ("forward") and back-projected ("adjoint"); a Gram product counts as both.

    Args:
        whole, share: of an operator that is part of another, such as one of some of its views: what is counted here
            counts there as this share of an image.

    Attributes:
        images: counted so far.
    """

    def __init__(self, whole: Calls | None = None, share: float = 1.0) -> None:
        self.images: Counter[str] = Counter()
        self._whole, self._share = whole, share

    def add(self, images: float, *names: str) -> None:
        """Count so many images for each of the names."""
        for name in names:
            self.images[name] += images  # type: ignore[assignment]  # a share of the views is a fraction of an image
        if self._whole is not None:
            self._whole.add(images * self._share, *names)
