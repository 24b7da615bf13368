import medrecon, torch
from medrecon.solvers.diffusion.resample.fast import ReSample

class Coarse(medrecon.LinearOperator):  # A: a detector whose pixels are twice as large
    in_shape, out_shape = (64, 64), (32, 32)
    def _forward(self, x): return torch.nn.functional.avg_pool2d(x, 2)
    def _adjoint(self, y): return y.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4

radius = torch.cartesian_prod(torch.arange(-32, 32.0), torch.arange(-32, 32.0)).norm(dim=1).view(1, 64, 64)
truth = torch.where(radius < 22, 40.0, -1000.0)  # HU
y = medrecon.Measurement(Coarse()(truth) + 10 * torch.randn(1, 32, 32), torch.full((1, 32, 32), 1 / 10**2))
solution = medrecon.reconstruct(Coarse(), y, ReSample(medrecon.load_prior("ct_pixel"), steps=8))
