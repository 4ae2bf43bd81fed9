"""Names and weights → torch modules; checkpoints as safetensors + spec."""
