"""Training: runs, the loop and its steps, checkpoints, validation and what is reported."""
