"""Accuracy, latency, cost and agreement of a model file."""
