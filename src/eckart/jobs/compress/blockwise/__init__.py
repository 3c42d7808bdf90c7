"""Models larger than memory: weights are read block by block, and written so."""
