"""ONNX as data: reading, checking and rewriting graphs."""
