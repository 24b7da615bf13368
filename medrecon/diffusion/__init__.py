"""The reverse process that every diffusion method shares: guide, sampler, draw and schedule (docs/design/engine.md)."""
