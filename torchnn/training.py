"""Names that programs import: the classifier, its data, and a callback. They live in `model`, `data` and `runs`."""

from torchnn.console import need

with need("train", "torchnn.training"):
    from torchnn.data.module import TabularDataModule
    from torchnn.model.classifier import BinaryClassifier
    from torchnn.runs.gradient_health import GradientHealth

__all__ = ["BinaryClassifier", "GradientHealth", "TabularDataModule"]
