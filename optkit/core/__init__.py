"""What every room shares: types, errors, the store, discovery. Nothing here needs more than pydantic."""
