"""Pages of measurements and lines on cards, made from the rows in benchmarks/results."""
