"""The same training in several precisions, with one process, two processes and partial batches."""
