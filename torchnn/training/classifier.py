"""The classifier: an `MLP` with its standardisation, trained by Lightning through the hand-derived backward."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    BinaryROC,
)

from torchnn.functional import binary_cross_entropy
from torchnn.functional.network import check_loss_name
from torchnn.modules.mlp import MLP
from torchnn.training.batches import as_batch
from torchnn.training.data import TabularDataModule
from torchnn.training.defaults import HIDDEN_SIZES, LR, PLATEAU, decay_for, steps_per_epoch
from torchnn.training.optimisers import ScheduleError, make_optimiser, make_schedule
from torchnn.training.standardise import Standardise


class BinaryClassifier(pl.LightningModule):
    """A network for two classes that takes raw numbers and returns the probability of class 1.

    Args:
        in_features: number of columns of the table; the command line takes it from the data.
        hidden_sizes: neurons of each hidden layer; an empty list is logistic regression.
        activation: of the hidden layers: identity, sigmoid, tanh, relu or step; one name, or a list of one per layer.
        output_activation: of the output: sigmoid for binary_cross_entropy, any for mse.
        bias: true for one number per neuron, shared for one number per layer, false for none.
        initialisation: by_activation (4 × Xavier for sigmoid, He for relu, Xavier otherwise), xavier, or torch.
        loss: binary_cross_entropy, or mse, whose output is taken as a probability after clamping it to [0, 1].
        optimizer: name of a class in torch.optim.
        optimizer_args: further arguments of that class.
        lr: learning rate, above 0, the initial one if there is a schedule.
        weight_decay: weight decay of the optimiser, 0 or more; auto for 2 by the steps of an epoch with AdamW, else 0.
        lr_scheduler: name of a class in torch.optim.lr_scheduler, or null for a constant rate; ReduceLROnPlateau looks
            at the validation loss, or at that of training where there is no validation.
        lr_scheduler_args: further arguments of that class; null for none, and for ReduceLROnPlateau for factor 0.5 and
            patience 10.
        lr_scheduler_interval: whether the schedule advances every epoch or every step.
        pos_weight: weight of class 1 in the loss, above 0; binary_cross_entropy only.
        threshold: probability from which a row is called class 1, between 0 and 1.

    Shapes: raw features (rows, in_features); probabilities (rows, 1). A loader gives `torchnn.training.batches.Batch`,
    or pairs of features (rows, in_features) and target (rows,) or (rows, 1).

    Raises:
        ValueError: an argument outside what is said above; the message names it.

    >>> model = BinaryClassifier(in_features=2, hidden_sizes=[3])
    >>> model(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        hidden_sizes: Sequence[int] = HIDDEN_SIZES,
        activation: str | Sequence[str] = "sigmoid",
        output_activation: str = "sigmoid",
        bias: bool | Literal["shared"] = True,
        initialisation: Literal["by_activation", "xavier", "torch"] = "by_activation",
        loss: Literal["binary_cross_entropy", "mse"] = "binary_cross_entropy",
        optimizer: str = "AdamW",
        optimizer_args: Mapping[str, Any] | None = None,
        lr: float = LR,
        weight_decay: float | Literal["auto"] = "auto",
        lr_scheduler: str | None = "ReduceLROnPlateau",
        lr_scheduler_args: Mapping[str, Any] | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        pos_weight: float = 1.0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        check_numbers(hidden_sizes, lr, weight_decay, pos_weight, threshold)
        self.save_hyperparameters()
        self.options: Any = self.hparams
        self.standardise = Standardise(in_features)
        self.network = MLP([in_features, *hidden_sizes, 1], activation, output_activation, bias)
        check_loss(loss, self.network.activations[-1], pos_weight)
        self.network.reset_parameters(initialisation)
        self.register_buffer("pos_weight", None if pos_weight == 1 else torch.tensor(pos_weight), persistent=False)
        self.configure_optimizers()  # refuses wrong names and arguments now, not after minutes of reading data
        self.metrics = torch.nn.ModuleDict({stage: evaluation_metrics(stage, threshold) for stage in ("val", "test")})
        self.roc = BinaryROC()

    def forward(self, features: Tensor) -> Tensor:
        """The output of the network for raw features (rows, in_features), shape (rows, 1)."""
        output: Tensor = self.network(self.standardise(features))
        return output

    def setup(self, stage: str) -> None:
        """Fit the standardisation on the training rows of a `TabularDataModule`, and leave it alone with other data.

        A checkpoint that is resumed from (`ckpt_path`) replaces it afterwards.
        """
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, TabularDataModule):
            self.standardise.fit(data.train_features)
        elif stage == "fit" and not self.standardise.is_fitted:
            rank_zero_warn(
                "BinaryClassifier trains on raw features: without a TabularDataModule nothing is standardised. "
                "Call model.standardise.fit(features) before, with the training rows."
            )

    def configure_optimizers(self) -> Any:
        options, trainer = self.options, self._trainer
        decay = options.weight_decay
        if decay == "auto":
            decay = decay_for(options.optimizer, steps_per_epoch(trainer))
        optimiser = make_optimiser(
            options.optimizer, self.parameters(), options.lr, decay, options.optimizer_args or {}
        )
        if options.lr_scheduler is None:
            return optimiser
        on_plateau = options.lr_scheduler == ReduceLROnPlateau.__name__
        args = options.lr_scheduler_args
        if args is None:
            args = PLATEAU if on_plateau else {}
        how = {"scheduler": make_schedule(options.lr_scheduler, optimiser, args)}
        how |= {"interval": options.lr_scheduler_interval}
        if on_plateau:
            if options.lr_scheduler_interval == "step":
                raise ValueError(
                    "lr_scheduler_interval is step: ReduceLROnPlateau looks at the validation loss, so set epoch."
                )
            validates = trainer is None or trainer.enable_validation
            how |= {"monitor": "val_loss" if validates else "train_loss"}
            how |= {"strict": False}  # max_steps may end a run before its first validation
            if trainer is not None and validates:
                how |= {"frequency": trainer.check_val_every_n_epoch or 1}
        return [optimiser], [how]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        try:
            super().lr_scheduler_step(scheduler, metric)
        except (ArithmeticError, TypeError, ValueError) as error:
            name, args = self.options.lr_scheduler, self.options.lr_scheduler_args
            raise ScheduleError(f"{name} cannot go on with lr_scheduler_args {args} ({error}).") from error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = self._inputs(batch)
        loss: Tensor = self.network(x, y, pos_weight=self.pos_weight, loss=self.options.loss)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(y), sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        probability, label = self._evaluate(batch, "test")
        self.roc.update(probability, label)

    def on_test_epoch_start(self) -> None:
        self.roc.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Row number, probability of class 1 and label (0 or 1), each (rows,)."""
        batch = as_batch(batch)
        probability = as_probability(self(batch.features)).squeeze(-1)
        return {"row": batch.row, "probability": probability, "label": (probability >= self.options.threshold).int()}

    def _inputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Standardised features (rows, in_features) and target (rows, 1)."""
        batch = as_batch(batch)
        x: Tensor = self.standardise(batch.features)
        return x, batch.target.unsqueeze(-1).to(x.dtype)

    def _evaluate(self, batch: Any, stage: str) -> tuple[Tensor, Tensor]:
        x, y = self._inputs(batch)
        loss, output = self.network(x, y, pos_weight=self.pos_weight, loss=self.options.loss, return_output=True)
        probability = as_probability(output)
        if self.options.loss == "mse":
            log_loss = binary_cross_entropy(probability, y.to(probability.dtype))
        else:
            log_loss = loss if self.pos_weight is None else self.network.loss(x, y)

        metrics: Any = self.metrics[stage]
        metrics.update(probability, y.int())
        self.log_dict(metrics)
        self.log(f"{stage}_loss", loss, prog_bar=stage == "val", batch_size=len(y), sync_dist=True)
        self.log(f"{stage}_log_loss", log_loss, batch_size=len(y), sync_dist=True)
        return probability, y.int()


def evaluation_metrics(stage: str, threshold: float) -> MetricCollection:
    """What is measured on validation and held-out rows, besides the losses; names begin with the stage."""
    metrics = {
        "accuracy": BinaryAccuracy(threshold),
        "auroc": BinaryAUROC(),
        "average_precision": BinaryAveragePrecision(),
        "f1": BinaryF1Score(threshold),
        "calibration_error": BinaryCalibrationError(),
    }
    return MetricCollection(metrics, prefix=f"{stage}_")  # type: ignore[arg-type]


def as_probability(output: Tensor) -> Tensor:
    """The output as a float32 probability at least; only an output trained on squared error can leave [0, 1]."""
    return output.to(torch.promote_types(output.dtype, torch.float32)).clamp(0, 1)


def check_numbers(
    hidden_sizes: Sequence[int], lr: float, weight_decay: float | Literal["auto"], pos_weight: float, threshold: float
) -> None:
    """Raise ValueError naming the first argument that is out of range."""
    for position, size in enumerate(hidden_sizes):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"hidden_sizes[{position}] is {size}: a hidden layer has 1 neuron or more.")
    for name, value in (("lr", lr), ("pos_weight", pos_weight)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: it is a finite number above 0.")
    if weight_decay != "auto" and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay is {weight_decay}: it is a finite number, 0 or more, or auto.")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}: it lies between 0 and 1.")


def check_loss(loss: str, last_activation: str, pos_weight: float) -> None:
    """Raise ValueError unless the loss is known and fits the output's activation and the positive-class weight."""
    if loss == "binary_cross_entropy" and last_activation != "sigmoid":
        raise ValueError(
            f"output_activation is {last_activation}: binary_cross_entropy needs a probability, so sigmoid; "
            "the mse loss takes any."
        )
    check_loss_name(loss, None if pos_weight == 1 else pos_weight)
