"""Training with Lightning: the classifier, its data, and the callbacks of a run."""

from torchnn.training.classifier import BinaryClassifier
from torchnn.training.data import TabularDataModule

__all__ = ["BinaryClassifier", "TabularDataModule"]
