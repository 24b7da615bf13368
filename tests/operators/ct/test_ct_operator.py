"""CTOperator against analytic sinograms, its own backends and its contract."""

import math
import os
import pickle
import subprocess
import sys

import pytest
import torch
from ct_phantoms import Ellipse, views

from medrecon.geometry import ConeGeometry, FanGeometry, ImageGrid, ParallelGeometry, VolumeGrid
from medrecon.operators.check import adjoint_error, check_operator
from medrecon.operators.ct.astra.volumes import astra_rays, parallel_vectors
from medrecon.operators.ct.operator import MATRIX_LIMIT, CTOperator

BODY = Ellipse(40.0, -25.0, 90.0, 65.0, 0.6)
GRID = ImageGrid((256, 256), (1.4, 1.4), center=(5.0, -8.0))
pytestmark = pytest.mark.usefixtures("one_thread")
PARALLEL = ParallelGeometry(views(60), 300, 1.4, det_offset=0.35)
FAN = FanGeometry(views(60), 350, 2.2, 600.0, 500.0)
ARC = FanGeometry(views(60), 350, 2.2, 600.0, 500.0, 0.55, "arc", tuple((0.002 * (-1) ** i, 1.0) for i in range(60)))
SMALL = ImageGrid((21, 18), (1.1, 1.3), center=(2.0, 1.0))
TINY = ParallelGeometry((0.0, math.pi / 4, math.pi / 2, math.pi, 1.0), 27, 1.2)
FAN_TINY = FanGeometry(TINY.angles, 27, 2.0, 50.0, 40.0)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("geometry", "grid", "model"),
    [
        (PARALLEL, GRID, "line"),
        (PARALLEL, GRID, "strip"),
        (PARALLEL, GRID, "linear"),
        (PARALLEL, ImageGrid((256, 300), (1.4, 1.2), (5.0, -8.0)), "line"),
        (PARALLEL, ImageGrid((300, 256), (1.2, 1.4), (5.0, -8.0)), "linear"),
        (FAN, GRID, "line"),
        (FAN, GRID, "strip"),
        (FAN, GRID, "linear"),
        (ARC, GRID, "linear"),
        (
            FanGeometry(views(60), 350, 2.2, 600.0, 500.0, 0.55),
            ImageGrid((300, 256), (1.2, 1.4), (5.0, -8.0)),
            "linear",
        ),
        (FanGeometry(views(60), 350, 2.2, 600.0, 500.0, det_offset=0.55), GRID, "line"),
        (FanGeometry(views(60), 350, 2.2, 600.0, 500.0), ImageGrid((300, 256), (1.2, 1.4), (5.0, -8.0)), "line"),
    ],
)
def test_projects_an_ellipse_in_mm(geometry: ParallelGeometry | FanGeometry, grid: ImageGrid, model: str) -> None:
    A = CTOperator(geometry, grid, "joseph" if model == "linear" else "astra", model)  # type: ignore[arg-type]
    exact, image = BODY.sinogram(geometry), BODY.image(grid)
    wrong = torch.stack([image.flip(0), image.flip(1), image.flip(0, 1)])
    projection = A(torch.cat([image[None], wrong]))
    assert relative(projection[0], exact) < 0.006
    assert all(relative(p, exact) > 0.3 for p in projection[1:])  # a flipped image is another one


def test_error_falls_with_the_pixel_size() -> None:
    geometry = ParallelGeometry(views(20), 300, 1.4)
    errors = []
    for n in (64, 128, 256):
        grid = ImageGrid((n, n), (358.4 / n, 358.4 / n))
        errors.append(relative(CTOperator(geometry, grid, "astra", "line")(BODY.image(grid)), BODY.sinogram(geometry)))
    assert errors[0] > 1.5 * errors[1] > 2.2 * errors[2]


def test_same_object_other_pixels_same_sinogram() -> None:
    """mm count, not pixels: halved pixels or doubled lengths at half the attenuation."""
    coarse = CTOperator(TINY, ImageGrid((10, 12), (2.0, 2.0)), model="line")
    fine = CTOperator(TINY, ImageGrid((20, 24), (1.0, 1.0)), model="line")
    x = torch.rand(10, 12)
    assert relative(fine(x.repeat_interleave(2, 0).repeat_interleave(2, 1)), coarse(x)) < 1e-5
    wide = ParallelGeometry(TINY.angles, TINY.det_count, 2 * TINY.det_spacing)
    assert relative(CTOperator(wide, ImageGrid((10, 12), (4.0, 4.0)), model="line")(x / 2), coarse(x)) < 1e-5


def test_central_ray_is_attenuation_times_length() -> None:
    A = CTOperator(ParallelGeometry((0.0, math.pi / 2), 1, 1.0), ImageGrid((5, 7), (2.0, 3.0)))
    x = torch.zeros(5, 7)
    x[:, 3] = 0.1  # the middle column: 5 pixels of 2 mm along y
    x[2, :] = 0.1  # the middle row: 7 pixels of 3 mm along x
    assert A(x).flatten().tolist() == pytest.approx([1.0, 2.1], rel=1e-5)


@pytest.mark.parametrize("backend", ["matrix", "astra"])
@pytest.mark.parametrize("degrees", [0, 45, 90, 180, 270])
def test_axis_aligned_rays(degrees: int, backend: str) -> None:
    """cos(pi/2) is not 0: views along the axes and diagonals are neither lost nor doubled, alone or among others.

    With 60 elements the rays pass pixel centres, with 61 they run between pixels, where one neighbour is read.
    """
    grid, disc = ImageGrid((64, 64), (1.4, 1.4)), Ellipse(6.0, -4.0, 30.0, 20.0)
    for elements, others in ((60, 1), (61, 1), (60, 3), (61, 3)):
        geometry = ParallelGeometry((math.radians(degrees), 1.0, 2.0)[:others], elements, 1.4)
        A = CTOperator(geometry, grid, backend)  # type: ignore[arg-type]
        projection, exact = A(disc.image(grid, 8))[0], disc.sinogram(geometry)[0]
        assert relative(projection, exact) < (0.03 if elements == 60 else 0.08)
        assert float(projection.sum()) == pytest.approx(float(exact.sum()), rel=0.01 if elements == 60 else 0.03)
        assert adjoint_error(A) < 1e-6


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("backend", ["matrix", "astra"])
def test_batch_is_single_items(batch: int, backend: str) -> None:
    A = CTOperator(FanGeometry(TINY.angles, 27, 1.9, 50.0, 30.0), SMALL, backend, "line")  # type: ignore[arg-type]
    assert adjoint_error(A, batch=batch) < 1e-6
    x = torch.randn(batch, *A.in_shape)
    assert relative(A(x), torch.stack([A(item) for item in x])) < 1e-6
    assert A(x[:0]).shape == (0, *A.out_shape)


@pytest.mark.parametrize("geometry", [TINY, FanGeometry(TINY.angles, 27, 1.9, 50.0, 30.0, det_offset=0.4)])
def test_matrix_equals_astra(geometry: ParallelGeometry | FanGeometry) -> None:
    matrix, direct = (CTOperator(geometry, SMALL, backend, "line") for backend in ("matrix", "astra"))  # type: ignore[arg-type]
    x, y = torch.randn(2, *matrix.in_shape), torch.randn(2, *matrix.out_shape)
    assert relative(matrix(x), direct(x)) < 1e-6
    assert relative(matrix.adjoint(y), direct.adjoint(y)) < 1e-6


def test_independent_projector() -> None:
    """skimage's radon, by rotation: same orientation and scale, within its half-pixel interpolation."""
    radon = pytest.importorskip("skimage.transform").radon
    n = 101  # odd: its centre N // 2 is then ours
    grid, disc = ImageGrid((n, n), (1.0, 1.0)), Ellipse(12.0, -7.0, 25.0, 18.0, 0.4)
    degrees = [0.0, 30.0, 90.0, 135.0]
    A = CTOperator(ParallelGeometry(tuple(math.radians(d) for d in degrees), n, 1.0), grid)
    other = torch.from_numpy(radon(disc.image(grid).double().numpy(), theta=degrees).T).float()
    assert relative(A(disc.image(grid)), other) < 0.02


@pytest.mark.parametrize("A", list(CTOperator.examples()), ids=repr)
def test_subset_and_pickle(A: CTOperator) -> None:
    x = torch.randn(2, *A.in_shape)
    y = A(x)
    views_ = [4, 0, 3]
    assert relative(A.subset(views_)(x), y[:, views_]) < 1e-6
    data = pickle.dumps(A)
    assert len(data) < 2000  # the geometry, not the matrix
    assert torch.equal(pickle.loads(data)(x), y)


def test_subset_shares_the_matrix() -> None:
    A = CTOperator(TINY, SMALL, "matrix")
    A(torch.ones(A.in_shape))
    part = A.subset([3, 1])
    assert part._built["matrix"].matrix.shape[0] == 2 * TINY.det_count  # type: ignore[attr-defined]


def test_auto_chooses_by_size() -> None:
    small = CTOperator(ParallelGeometry(views(60), 363, 1.5), ImageGrid((256, 256), (1.5, 1.5)), model="line")
    large = CTOperator(ParallelGeometry(views(720), 736, 0.7), ImageGrid((512, 512), (0.7, 0.7)), model="line")
    assert (small.chosen(), large.chosen()) == ("matrix", "astra") and large.nonzeros() > MATRIX_LIMIT
    small, large = (CTOperator(A.geometry, A.grid, model="linear") for A in (small, large))
    assert small.chosen("cuda") == "torch"
    assert [small.chosen(), large.chosen(), large.chosen(dtype=torch.float64)] == ["matrix", "joseph", "torch"]


def test_estimate_of_nonzeros() -> None:
    for model in ("line", "strip", "linear"):
        A = CTOperator(PARALLEL.subset(range(6)), GRID, "matrix", model)  # type: ignore[arg-type]
        entries = A._projector("matrix").matrix.nnz  # type: ignore[attr-defined]
        assert 0.8 * entries < A.nonzeros() < 1.5 * entries


def test_dtype_is_kept() -> None:
    for backend in ("matrix", "torch"):
        A = CTOperator(TINY, SMALL, backend)  # type: ignore[arg-type]
        x = torch.randn(A.in_shape, dtype=torch.float64)
        assert A(x).dtype == torch.float64 and A(x.bfloat16()).dtype == torch.bfloat16
        assert 1e-9 < relative(A(x).float(), A(x.float())) < 1e-6
    assert adjoint_error(CTOperator(TINY, SMALL, "matrix")) < 1e-6


@pytest.mark.parametrize("backend", ["auto", "matrix", "joseph"])
def test_bits_do_not_depend_on_the_batch_where_rays_are_long(backend: str) -> None:
    """Rays longer than the blocks of the loops, and batches around the sizes at which they change."""
    A = CTOperator(ParallelGeometry(views(5), 60, 1.3), ImageGrid((70, 73), (1.0, 1.1)), backend)  # type: ignore[arg-type]
    x, y = torch.randn(70, *A.in_shape), torch.randn(70, *A.out_shape)
    for apply, data in ((A.forward, x), (A.adjoint, y)):
        alone = torch.cat([apply(item[None]) for item in data[:20]])
        for size in (2, 4, 5, 8, 9, 16, 31, 32, 33, 65, 70):
            assert torch.equal(apply(data[:size])[:20], alone[:size])


def test_no_astra_object_is_left_behind(capfd: pytest.CaptureFixture[str]) -> None:
    import astra

    for A in CTOperator.examples():
        A.adjoint(A(torch.randn(A.in_shape)))
    astra.projector.info()
    astra.matrix.info()
    printed = capfd.readouterr().out
    assert "ID" in printed or printed.strip() == "" or "---" in printed
    assert not [line for line in printed.splitlines() if line[:1].isdigit()]


GUARD = """
import medrecon.operators.ct.operator as ct, torch
grid = ct.ImageGrid((8, 8), (1.0, 1.0))
for geometry in (ct.ParallelGeometry((0.0, 1.0), 9, 1.0), ct.FanGeometry((0.0, 1.0), 9, 1.0, 50.0, 50.0)):
    try:
        ct.CTOperator(geometry, grid, backend="cuda", adjoint="fast")
    except RuntimeError as error:
        print(error)
    print(float(ct.CTOperator(geometry, grid)(torch.ones(8, 8)).sum()) > 0)
"""


def test_no_gpu_is_a_clean_error() -> None:
    """In a process of its own: ASTRA without a device may kill the process instead of raising."""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", GUARD], capture_output=True, text=True, env=hidden, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no CUDA device") == 2 and done.stdout.count("True") == 2


def test_failure_of_the_gpu_projector_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """ASTRA 2.5 prints some GPU errors and returns; the unwritten result must not pass for data."""
    import astra

    if astra.use_cuda():
        pytest.skip("needs a machine without CUDA")
    monkeypatch.setattr(astra, "use_cuda", lambda: True)
    A = CTOperator(FAN_TINY, ImageGrid((8, 8), (1.0, 1.0)), "cuda", adjoint="fast")
    with pytest.raises(Exception, match=r"wrote no result|CUDA|cuda"):
        A(torch.ones(8, 8))


@pytest.mark.parametrize("detector", ["flat", "arc"])
def test_astra_places_the_rays_of_a_cone_where_we_do(detector: str) -> None:
    """ASTRA's own projection of a point, on the geometry handed to it, meets the element that our ray meets."""
    from astra.experimental import projectPoint

    shifts = tuple((0.01 * (-1) ** i, 2.0, 0.7) for i in range(4))
    cone = ConeGeometry(
        (0.0, 1.1, 2.5, -2.0), (9, 31), (2.0, 3.0), 600.0, 400.0, (1.0, -2.0, 3.0, 0.0), (0.5, 4.0), detector, shifts
    )  # type: ignore[arg-type]
    rays = astra_rays(cone, 1)
    sources, elements = cone.plane().sources(), cone.plane().elements()
    for view in range(4):
        for row, column in ((0, 0), (8, 30), (3, 17)):
            start = (*sources[view], cone.source_heights()[view])
            end = (*elements[view, column], cone.row_heights()[view, row])
            half_way = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
            u, v = projectPoint(rays, *half_way, view)
            assert abs(u - column) < 1e-3 and abs(v - row) < 1e-3


def test_parallel_rays_for_astra_in_three_dimensions() -> None:
    vectors, (point, direction) = parallel_vectors(PARALLEL), PARALLEL.rays()
    middle = (PARALLEL.det_count - 1) / 2
    for column in (0, 17, 299):
        place = vectors[:, 3:5] + (column - middle) * vectors[:, 6:8]
        assert abs(place - point[:, column]).max() < 1e-9 and abs(vectors[:, :2] - direction[:, column]).max() < 1e-12


@pytest.mark.parametrize("geometry", [TINY, FAN_TINY, FanGeometry(TINY.angles, 27, 2.0, 50.0, 40.0, 0.3, "arc")])
def test_torch_equals_the_compiled_loops(geometry: ParallelGeometry | FanGeometry) -> None:
    A, B = (CTOperator(geometry, SMALL, backend) for backend in ("torch", "joseph"))  # type: ignore[arg-type]
    x, y = torch.randn(3, *A.in_shape), torch.randn(3, *A.out_shape)
    assert relative(A(x), B(x)) < 1e-6 and relative(A.adjoint(y), B.adjoint(y)) < 1e-6
    assert adjoint_error(CTOperator(geometry, SMALL, "torch")) < 1e-6


def test_torch_equals_the_compiled_loops_on_a_helix() -> None:
    helix = ConeGeometry.helix(7, 2.0, 9.0, (5, 19), (1.7, 2.3), 40.0, 25.0, det_offset=(0.2, 0.8))
    grid = VolumeGrid((7, 11, 12), (1.5, 2.4, 2.1), (0.5, -0.3, 0.7))
    A, B = (CTOperator(helix, grid, backend) for backend in ("torch", "joseph"))  # type: ignore[arg-type]
    x, y = torch.randn(2, *A.in_shape), torch.randn(2, *A.out_shape)
    assert relative(A(x), B(x)) < 1e-6 and relative(A.adjoint(y), B.adjoint(y)) < 1e-6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_projects_the_ellipse() -> None:
    for geometry in (PARALLEL, FAN):
        A = CTOperator(geometry, GRID, "cuda", adjoint="fast")
        assert relative(A(BODY.image(GRID).cuda()).cpu(), BODY.sinogram(geometry)) < 0.01
        with pytest.raises(ValueError, match="adjoint"):
            check_operator(A)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CTOperator(FAN, GRID, "astra", model="linear"), "linear"),
        (lambda: CTOperator(FAN, GRID, "joseph", "line"), "linear"),
        (lambda: CTOperator(FAN, GRID, "cuda"), "adjoint='fast'"),
        (lambda: CTOperator(FAN, GRID, adjoint="approximate"), "adjoint"),
        (lambda: CTOperator(FanGeometry((0.0,), 9, 1.0, 600.0, 500.0, detector="arc"), GRID, model="line"), "arc"),
        (lambda: CTOperator(FAN, VolumeGrid((2, 9, 9), (1.0, 1.0, 1.0))), "ImageGrid"),
        (lambda: CTOperator(ConeGeometry((0.0,), (2, 9), (1.0, 1.0), 600.0, 500.0), GRID), "VolumeGrid"),
        (
            lambda: CTOperator(
                ConeGeometry((0.0,), (2, 9), (1.0, 1.0), 600.0, 500.0), VolumeGrid((2, 9, 9), (1.0, 1.0, 1.0)), "matrix"
            ),
            "cone",
        ),
        (lambda: FanGeometry((0.0,), 9, 1.0, 600.0, 500.0, detector="curved"), "arc"),
        (lambda: FanGeometry((0.0,), 9, 500.0, 600.0, 500.0, detector="arc"), "half a circle"),
        (lambda: FanGeometry((0.0,), 9, 1.0, 600.0, 500.0, focal_shifts=((0.0, 0.0), (0.0, 0.0))), "focal_shifts"),
        (lambda: CTOperator(FanGeometry((0.0,), 9, 1.0, 600.0, 500.0, 0.1), GRID, model="strip"), "det_offset"),
        (lambda: CTOperator(PARALLEL, ImageGrid((9, 9), (1.0, 2.0)), model="strip"), "square"),
        (lambda: CTOperator(FAN, ImageGrid((256, 256), (14.0, 14.0))), "beyond the source"),
        (lambda: CTOperator(PARALLEL, GRID, "gpu"), "backend"),
        (lambda: CTOperator(PARALLEL, GRID, model="joseph"), "model"),
        (lambda: ParallelGeometry((), 9, 1.0), "angles"),
        (lambda: ParallelGeometry((math.nan,), 9, 1.0), "angles"),
        (lambda: ParallelGeometry((0.0,), 0, 1.0), "det_count"),
        (lambda: FanGeometry((0.0,), 9, -1.0, 600.0, 500.0), "det_spacing"),
        (lambda: FanGeometry((0.0,), 9, 1.0, 0.0, 500.0), "source_origin"),
        (lambda: ImageGrid((0, 9), (1.0, 1.0)), "shape"),
        (lambda: ImageGrid((9, 9), (1.0, 0.0)), "spacing"),
        (lambda: ImageGrid((9, 9), (1.0, 1.0), (math.inf, 0.0)), "center"),
    ],
)
def test_bad_settings_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
