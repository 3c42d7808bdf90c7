"""Diagnostics: numbers about a matrix, a model or data, one paper a file."""
