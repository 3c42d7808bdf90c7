"""The job that factors a table: a file of numbers in, an estimator and what it says of the table out."""
