"""Folders, CSV files and built-in sets → train and validation images → batches."""
