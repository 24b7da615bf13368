"""Joseph's projector, compiled and in torch."""
