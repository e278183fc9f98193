"""Training and evaluation of the sam2s tracker; the library never imports it."""

__version__ = "0.1.0"
