"""A model with fewer numbers that loses as little as possible."""
