"""Products and transforms of plain tensors."""
