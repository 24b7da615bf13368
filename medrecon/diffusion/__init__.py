"""The reverse process that every diffusion solver shares."""
