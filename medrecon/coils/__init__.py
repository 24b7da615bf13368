"""Receiver coils: combined, compressed, whitened."""
