"""One file per runtime: what executes a model file. The folder's listing is the registry."""
