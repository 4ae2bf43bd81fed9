"""One folder per verb: `config.py` (light) and `stage.py` with `run(config, inputs, context) -> Output`."""
