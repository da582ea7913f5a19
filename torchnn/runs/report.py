"""What `torchnn test` writes into the run folder: its results as JSON, and pictures of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.calibration import calibration_curve
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor
from torchmetrics.classification import BinaryConfusionMatrix, BinaryPrecisionRecallCurve, BinaryROC
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities.distributed import gather_all_tensors

from torchnn.data.batches import as_batch
from torchnn.files import write_whole
from torchnn.runs.callbacks import new_figure, run_folder, save_figure
from torchnn.runs.importance import Importance, permutation_importance
from torchnn.tables.target import check_both_classes

IMPORTANCE_ROWS = 10_000  # the largest number of held-out rows with which importance is measured
SHOWN = 20  # columns in the picture of importance
POINTS_OF_A_CURVE = 10_000  # more than a picture shows; matplotlib needs much memory for millions
BINS = 10  # of the reliability diagram, with equal numbers of rows


class TestReport(Callback):
    """Writes `test.json` and the pictures of the held-out rows into the run folder."""

    __test__ = False  # pytest would collect it

    def __init__(self) -> None:
        self.first: list[tuple[Tensor, Tensor, Tensor]] = []  # row, features and target of each batch

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        wanted = -(-IMPORTANCE_ROWS // trainer.world_size)
        missing = wanted - sum(len(row) for row, _, _ in self.first)
        if missing > 0:
            rows = as_batch(batch)
            self.first.append((rows.row[:missing], rows.features[:missing], rows.target[:missing]))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model: Any = pl_module
        probability, target, _ = model.held_out.compute()  # a message among all processes
        row, features, true = (gathered(parts, trainer) for parts in zip(*self.first, strict=True))
        label = target.round().int().flatten()  # torchmetrics makes a scalar of a single row
        schema = model.schema
        classes = ("0", "1") if schema is None else schema.classes
        check_both_classes("the test", label.bincount(minlength=2).tolist(), classes)
        folder = run_folder(trainer)
        if folder is None:
            return
        first = row.argsort()[:IMPORTANCE_ROWS] if trainer.world_size > 1 else slice(None)
        importance = permutation_importance(model, features[first], true[first].round().int())
        counts = BinaryConfusionMatrix(model.threshold)(probability, label)
        draw(folder / "roc.png", lambda axes: draw_roc(axes, probability, label))
        draw(folder / "precision_recall.png", lambda axes: draw_precision_recall(axes, probability, label))
        draw(folder / "reliability.png", lambda axes: draw_reliability(axes, probability, label))
        draw(folder / "threshold.png", lambda axes: draw_threshold(axes, probability, label, model.threshold))
        draw(folder / "confusion.png", lambda axes: draw_confusion(axes, counts, classes))
        draw(folder / "importance.png", lambda axes: draw_importance(axes, importance))
        metrics = {name.removeprefix("test_"): float(value) for name, value in trainer.callback_metrics.items()}
        report = {
            "rows": len(label),
            "metrics": metrics,
            "classes": list(classes),
            "threshold": model.threshold,
            "temperature": float(model.temperature),
            "pos_weight": 1.0 if model.pos_weight is None else float(model.pos_weight),
            "confusion": {"rows are true classes, columns predicted ones": counts.tolist()},
            "importance": {one.column: {"auroc_lost": one.mean, "sd": one.sd} for one in importance},
        }
        write_whole(folder / "test.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def gathered(parts: Sequence[Tensor], trainer: pl.Trainer) -> Tensor:
    """The rows of all batches of all processes."""
    own = torch.cat(list(parts))
    return own if trainer.world_size == 1 else torch.cat(gather_all_tensors(own))


def draw(path: Path, how: Callable[[Any], None]) -> None:
    """Write one picture, drawn by a function of its axes."""
    figure, axes = new_figure()
    how(axes)
    save_figure(figure, path)


def thinned(curve: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Evenly spaced points of a curve, with the first and the last."""
    last = len(curve[0]) - 1
    shown = torch.linspace(0, last, min(last + 1, POINTS_OF_A_CURVE), dtype=torch.float64).round().long()
    first, second, third = (points[shown] for points in curve)
    return first, second, third


def draw_roc(axes: Any, probability: Tensor, label: Tensor) -> None:
    """Receiver operating characteristic."""
    curve, area = BinaryROC(), binary_auroc(probability, label)
    curve.plot(thinned(curve(probability, label)), score=area, ax=axes)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey", label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC of held-out rows", aspect="equal")
    axes.legend(loc="lower right")


def draw_precision_recall(axes: Any, probability: Tensor, label: Tensor) -> None:
    """Precision by recall."""
    curve, area = BinaryPrecisionRecallCurve(), binary_average_precision(probability, label)
    precision, recall, thresholds = curve(probability, label)
    curve.plot(thinned((precision[:-1], recall[:-1], thresholds)), score=area, ax=axes)
    axes.axhline(float(label.double().mean()), linestyle=":", color="grey", label="chance")
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall of held-out rows", ylim=(0, 1.05))
    axes.legend(loc="lower left")


def draw_reliability(axes: Any, probability: Tensor, label: Tensor) -> None:
    """How often class 1 occurs among rows of about the same probability."""
    occurs, predicted = calibration_curve(label.numpy(), probability.numpy(), n_bins=BINS, strategy="quantile")
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey", label="perfect")
    axes.plot(predicted, occurs, marker="o", label="held-out rows, in tenths")
    axes.set(xlabel="predicted probability", ylabel="frequency of class 1", title="Reliability", aspect="equal")
    axes.legend(loc="upper left")


def draw_threshold(axes: Any, probability: Tensor, label: Tensor, threshold: float) -> None:
    """Precision, recall and F1 of every threshold."""
    precision, recall, thresholds = BinaryPrecisionRecallCurve()(probability, label)
    precision, recall, thresholds = thinned((precision[:-1], recall[:-1], thresholds))
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    for name, values, style in (("precision", precision, "-"), ("recall", recall, "--"), ("F1", f1, "-.")):
        axes.plot(thresholds.numpy(), values.numpy(), style, label=name)
    axes.axvline(threshold, color="grey", linestyle=":", label=f"threshold {threshold:.3g}")
    axes.set(xlabel="threshold", ylabel="on held-out rows", title="Metrics by threshold", xlim=(0, 1), ylim=(0, 1.05))
    axes.legend()


def draw_confusion(axes: Any, counts: Tensor, classes: tuple[str, str]) -> None:
    """Rows by true and by predicted class, drawn by scikit-learn because torchmetrics' plot warns with numpy 2."""
    ConfusionMatrixDisplay(counts.numpy(), display_labels=classes).plot(ax=axes, cmap="Blues", colorbar=False)
    axes.set(title="Held-out rows", xlabel="predicted class", ylabel="true class")


def draw_importance(axes: Any, importance: list[Importance]) -> None:
    """The area under the ROC that is lost when a column is shuffled."""
    shown = importance[:SHOWN][::-1]
    positions = np.arange(len(shown))
    axes.barh(positions, [one.mean for one in shown], xerr=[one.sd for one in shown], color="#4477aa")
    axes.set_yticks(positions, [one.column if len(one.column) < 25 else one.column[:24] + "…" for one in shown])
    more = f" (first {SHOWN} of {len(importance)} columns)" if len(importance) > SHOWN else ""
    axes.set(xlabel="AUROC lost when the column is shuffled", title=f"Importance{more}")
