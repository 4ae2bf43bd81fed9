"""One file per kind of source, each with `load(path, config) -> Listing`."""
