"""What a model is trained on: loaders over tables, and the data module."""
