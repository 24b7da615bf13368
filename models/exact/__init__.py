"""Priors whose denoiser is known in closed form."""
