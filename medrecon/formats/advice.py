"""What to do with files that medrecon does not read."""

from __future__ import annotations

from pathlib import Path

MARKS = {
    b"PK\x03\x04": "an archive; unpack it first, and give the folder",
    b"7z\xbc\xaf\x27\x1c": "an archive; unpack it first, and give the folder",
    b"Rar!": "an archive; unpack it first, and give the folder",
    b"BZh": "an archive; unpack it first, and give the folder",
    b"\xfd7zXZ": "an archive; unpack it first, and give the folder",
    b"NRRD": "NRRD; convert it to NIfTI first, with SimpleITK or 3D Slicer",
    b"ObjectType": "MetaImage; convert it to NIfTI first, with SimpleITK or 3D Slicer",
    b"\x00\x05\x16\x07": "what macOS keeps beside a file, no image; give the file without ._ in its name",
}
"""How files begin."""
NAMES = {
    (".tar", ".tgz", ".tar.gz"): "an archive; unpack it first, and give the folder",
    (".hdr", ".img"): "half of a pair of Analyze or NIfTI; join them into one .nii first, with nibabel",
    (".mgz", ".mgh"): "FreeSurfer's; convert it to NIfTI first, with mri_convert or nibabel",
    (".mnc",): "MINC; convert it to NIfTI first, with mnc2nii or nibabel",
    (".npz",): "a bundle of NumPy arrays; save an image as NIfTI first, with its affine, k-space as .npy",
    (".png", ".jpg", ".jpeg", ".bmp", ".gif"): "a picture, whose grey values have lost their units; give the original",
    (".tif", ".tiff"): "a picture, whose grey values may have lost their units; save it as NIfTI first, in its units",
}
"""How their names end."""
ARRAY = (
    "an array of real numbers, which tells neither voxel size nor units; save an image (z, y, x) as NIfTI first: "
    "nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), 'image.nii.gz'), with its affine, voxel to mm"
)
COMPLEX = (b"c8", b"c16")
IMAGES = (".nii", ".nii.gz")


def advice(path: Path) -> str:
    """Return what a file or folder is that no format recognises, and what to do with it; empty where nobody knows."""
    if path.is_dir():
        images = sorted(p.name for p in path.iterdir() if p.name.lower().endswith(IMAGES) and p.name[0] != ".")
        return f"it holds {images[0]}; give that file, one at a time" if images else ""
    with path.open("rb") as stream:
        head = stream.read(128)
    if head.startswith(b"\x93NUMPY"):
        return "" if any(kind in head for kind in COMPLEX) else ARRAY
    name = path.name.lower()
    by_mark = (text for mark, text in MARKS.items() if head.startswith(mark))
    return next((text for endings, text in NAMES.items() if name.endswith(endings)), next(by_mark, ""))
