"""The job that trains all of a model: from what it is, or from nothing but its configuration."""
