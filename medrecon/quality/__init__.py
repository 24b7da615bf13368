"""How good an image is: metrics, comparison with a reference, noise maps, pictures."""
