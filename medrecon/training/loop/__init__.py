"""The training loop: steps, checkpoints, processes, learning rate."""
