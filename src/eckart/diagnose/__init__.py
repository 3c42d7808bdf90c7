"""Looks at the matrices of a model and says what is in them; each diagnostic is a pure function beside its equation."""
