"""Training of autoencoders and latent diffusion priors."""
