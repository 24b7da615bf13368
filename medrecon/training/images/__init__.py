"""What is trained on: slices, their augmentation and their latents."""
