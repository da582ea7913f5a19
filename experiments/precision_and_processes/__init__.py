"""The same training in other precisions, and divided among processes and partial batches."""
