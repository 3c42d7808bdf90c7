"""Where matrices live in a model: finding, swapping, loading and saving them. Knows no method."""
