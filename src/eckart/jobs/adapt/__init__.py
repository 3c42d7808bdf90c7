"""A frozen model plus a small trainable structure beside each of its matrices."""
