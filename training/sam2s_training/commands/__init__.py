"""The commands of `python -m sam2s_training`, a module each."""
