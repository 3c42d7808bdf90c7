"""The job that puts trainable structures into a model before it is trained."""
