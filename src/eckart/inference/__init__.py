"""The same model, computed otherwise: one paper a file."""
