"""The classifier: preprocessing, network, metrics, optimiser."""
