"""Exporting a model as ONNX graphs: tracing, checking, quantising, and the folder they lie in."""
