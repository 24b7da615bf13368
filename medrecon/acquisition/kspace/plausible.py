"""Lengths in a header that no scan has: nearly always one axis in other units than the rest."""

from __future__ import annotations

from collections.abc import Sequence

FIELDS = (1.0, 5000.0)
"""Fields of view in the plane [mm]."""
PIXELS = (2e-3, 1000.0)
"""Pixels, slices and partitions [mm]."""
ANISOTROPY = 100.0
"""Times as long as wide a pixel in the plane may be."""
THICK, THIN = 1000.0, 0.05
"""Times the pixel's longer and shorter side a slice may be thick."""
OVERSAMPLING = (10.0, 10.0, 200.0)
"""Times as large as the image, or the other way round, an encoded field of view may be; that of the slices may be of
one or of all."""


def check_grid(matrix: Sequence[int], field_mm: Sequence[float], image_mm: Sequence[float], where: str) -> None:
    """Check the encoded matrix and fields of view > 0, encoded and of the image [mm], axes (readout, phase, slice).

    Raises:
        ValueError: what cannot be, or contradicts the other axes; begins with `where`.
    """
    hint = "are all lengths in mm? Correct the header"
    pixels = [mm / n for mm, n in zip(field_mm, matrix, strict=True)]
    told = f"fields of view of {' x '.join(f'{mm:g}' for mm in field_mm)} mm over {' x '.join(map(str, matrix))}, "
    told += f"pixels of {' x '.join(f'{mm:.3g}' for mm in pixels)} mm"
    if not all(FIELDS[0] <= mm <= FIELDS[1] for mm in field_mm[:2]):
        raise ValueError(f"{where}: {told}: no scan has these; {hint}")
    if not all(PIXELS[0] <= mm <= PIXELS[1] for mm in pixels):
        raise ValueError(f"{where}: {told}: no scan has these; {hint}")
    short, long = min(pixels[:2]), max(pixels[:2])
    if min(matrix[:2]) > 1 and (long > ANISOTROPY * short or not THIN * short <= pixels[2] <= THICK * long):
        raise ValueError(f"{where}: {told}: one axis does not fit the others; {hint}")
    for axis, (encoded, image) in enumerate(zip(field_mm, image_mm, strict=True)):
        if max(encoded / image, image / encoded) > OVERSAMPLING[axis]:
            raise ValueError(
                f"{where}: along {('the readout', 'the phase encoding', 'the slices')[axis]} the encoded field of view "
                f"is {encoded:g} mm and that of the image {image:g} mm; {hint}"
            )
