"""Sampler steps and noise schedules."""
