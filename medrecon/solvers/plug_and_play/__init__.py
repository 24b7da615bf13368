"""Plug-and-play: a denoiser in place of the proximal step of a regulariser, in classical iterations."""
