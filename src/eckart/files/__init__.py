"""Files that are whole or absent, and never hold code."""
