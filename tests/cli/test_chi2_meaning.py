"""What recon says of chi^2/m: of one-pass solvers that they do not fit, of estimated coil maps that they may err."""

from medrecon.cli.commands.recon import _meaning


def test_one_pass_solvers_do_not_fit_the_data() -> None:
    for solver in ("fbp", "zero-filled"):
        said = _meaning(solver, {"chi2": 8.0})
        assert solver in said and "does not fit the data" in said and "does not explain" not in said
    assert "does not explain the data" in _meaning("tv", {"chi2": 8.0})
    assert "no proof" in _meaning("fbp", {"chi2": 1.0})


def test_estimated_coil_maps_are_suspected() -> None:
    assert "coil maps (espirit) may err" in _meaning("cg-sense", {"chi2": 3.8, "coil_maps": "espirit"})
    for report in ({"chi2": 3.8, "coil_maps": "from the scan"}, {"chi2": 1.2, "coil_maps": "espirit"}, {"chi2": 3.8}):
        assert "may err" not in _meaning("cg-sense", report)
