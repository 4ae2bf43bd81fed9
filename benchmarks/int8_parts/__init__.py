"""The parts of int8.py."""
