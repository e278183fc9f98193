"""Training data: clips from the simulated endoscope, from folders, from shards, and mixtures."""
