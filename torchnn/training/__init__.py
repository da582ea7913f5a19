"""Training with Lightning: the classifier, its data, and the callbacks of a run."""

from torchnn.training.classifier import BinaryClassifier
from torchnn.training.data import TabularDataModule
from torchnn.training.gradient_health import GradientHealth

__all__ = ["BinaryClassifier", "GradientHealth", "TabularDataModule"]
