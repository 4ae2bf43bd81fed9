"""One file per kind of source, each with `load(config, seed) -> Dataset`."""
