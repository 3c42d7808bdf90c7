"""Learning from files: examples, the loop, its checkpoints; what `eckart adapt` and `eckart train` have in common."""
