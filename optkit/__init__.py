"""optkit: from a fine-tuned image classifier to the fastest engine within an accuracy budget, with proof."""

__version__ = "0.1.0"
