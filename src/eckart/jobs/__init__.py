"""What is driven over a whole model or a directory: the methods, the budget, the files and the report put together."""
