"""A branch of low rank beside each matrix of a compressed model, for what its compression lost."""
