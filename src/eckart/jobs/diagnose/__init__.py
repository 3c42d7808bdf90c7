"""A model in, what its matrices say out."""
