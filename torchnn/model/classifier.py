"""The classifier: an `MLP` with its preprocessing, trained by Lightning with the backward derived by hand."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchnn.data.batches import as_batch
from torchnn.data.module import TabularDataModule
from torchnn.data.shares import share_of
from torchnn.functional import binary_cross_entropy
from torchnn.functional.network import check_loss_name
from torchnn.model.decisions import ThresholdRule, as_probability, best_temperature, best_threshold, logit
from torchnn.model.defaults import HIDDEN_SIZES, LR, PLATEAU, decay_for, steps_per_epoch
from torchnn.model.metrics import EveryRow, MeanLoss, evaluation_metrics, set_threshold
from torchnn.model.optimisers import ScheduleError, make_optimiser, make_schedule
from torchnn.model.predictor import Predictor
from torchnn.model.preprocess import Categories, Preprocess, Scaling
from torchnn.model.sharded import shard
from torchnn.modules.mlp import MLP
from torchnn.tables.schema import Schema

USES_THE_LOSS = ("LBFGS",)  # it decides by the loss when a step ends, so all processes need the same loss


class BinaryClassifier(Predictor):
    """A network for two classes: it takes the raw columns of a table and returns the probability of class 1.

    Args:
        in_features: number of columns of the raw matrix; the command line takes it from the data.
        hidden_sizes: number of neurons in each hidden layer; an empty list gives logistic regression.
        activation: activation of the hidden layers: identity, sigmoid, tanh, relu or step; a list sets each layer.
        output_activation: activation of the output; sigmoid for binary_cross_entropy, any for mse.
        bias: true for one number per neuron, shared for one number per layer, false for none.
        initialisation: by_activation (4 × Xavier for sigmoid, He for relu, Xavier otherwise), xavier, or torch.
        loss: binary_cross_entropy, or mse; the output of mse, clamped to [0, 1], is the probability.
        optimizer: name of a class in torch.optim.
        optimizer_args: other arguments of the optimizer.
        lr: learning rate, above 0; with a schedule, the initial rate.
        weight_decay: weight decay of the optimizer, 0 or more; auto takes 2 / (steps per epoch) for AdamW and 0 for
            any other optimizer.
        lr_scheduler: name of a class in torch.optim.lr_scheduler, or null for a constant rate; ReduceLROnPlateau
            monitors the validation loss, or the training loss if there is no validation.
        lr_scheduler_args: other arguments of the schedule; null takes its defaults, but factor 0.5 and patience 10 for
            ReduceLROnPlateau.
        lr_scheduler_interval: whether the schedule advances every epoch or every step.
        pos_weight: weight of class 1 in the loss, above 0; auto takes (rows of class 0) / (rows of class 1); not for
            mse.
        threshold: probability from which a row is called class 1, between 0 and 1. Or how validation chooses it: f1
            for the highest F1, cost for the lowest cost of mistakes, recall for the highest threshold that reaches
            min_recall.
        cost_ratio: cost of missing a row of class 1, as a multiple of the cost of a false alarm, above 0; used by
            threshold cost.
        min_recall: fraction of class 1 to find, above 0 and at most 1; used by threshold recall.
        calibrate: whether validation chooses a temperature T, so that probabilities match frequencies; the logits
            become (z − log pos_weight) / T.
        scaling: scaling of numbers: standard (mean and standard deviation), robust (median and quartiles), or none.
        categories: one_hot, embed, or auto for one-hot up to 32 values and embeddings above.
        schema: the columns of the table; the command line takes it from the data.

    Shapes: raw features (rows, in_features), where with a schema a category is given by its code and NaN is a missing
    value; probabilities (rows, 1). A loader yields `torchnn.data.batches.Batch`, or pairs of features
    (rows, in_features) and target (rows,) or (rows, 1).

    Raises:
        ValueError: an argument is out of range; the message names it.

    >>> model = BinaryClassifier(in_features=2, hidden_sizes=[3])
    >>> model(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """

    pos_weight: Tensor | None
    temperature: Tensor
    chosen_threshold: Tensor

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
        pos_weight: float | Literal["auto"] = 1.0,
        threshold: float | ThresholdRule = 0.5,
        cost_ratio: float = 1.0,
        min_recall: float = 0.9,
        calibrate: bool = False,
        scaling: Scaling = "standard",
        categories: Categories = "auto",
        schema: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_numbers(hidden_sizes, lr, weight_decay, pos_weight, threshold, cost_ratio, min_recall)
        self.save_hyperparameters()
        self.options: Any = self.hparams
        self.schema = None if schema is None else Schema.from_plain(schema)
        if self.schema is not None and len(self.schema.slots) != in_features:
            raise ValueError(f"in_features is {in_features}, but the schema has {len(self.schema.slots)} slots.")
        self.preprocess = Preprocess(in_features, self.schema, scaling, categories)
        self.network = MLP([self.preprocess.out_features, *hidden_sizes, 1], activation, output_activation, bias)
        check_loss(loss, self.network.activations[-1], pos_weight, calibrate)
        self.network.reset_parameters(initialisation)
        # "auto" is computed from the training rows, so a checkpoint has to keep it.
        initial = None if pos_weight == 1 else torch.tensor(1.0 if pos_weight == "auto" else pos_weight)
        self.register_buffer("pos_weight", initial, persistent=pos_weight == "auto")
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("chosen_threshold", torch.tensor(0.5))
        self.configure_optimizers()  # to raise for wrong arguments now, and not after minutes of reading data
        stages = ("val", "test")
        self.metrics = torch.nn.ModuleDict({stage: evaluation_metrics(stage) for stage in stages})
        self.losses = torch.nn.ModuleDict({stage: MeanLoss() for stage in stages})
        self.log_losses = torch.nn.ModuleDict({stage: MeanLoss() for stage in stages})
        self.val_rows = EveryRow()  # logits
        self.held_out = EveryRow()  # probabilities

    def forward(self, features: Tensor) -> Tensor:
        """The probability of class 1 for raw features (rows, in_features), shape (rows, 1)."""
        return self._calibrated(self.network(self.preprocess(features)))

    def _calibrated(self, output: Tensor) -> Tensor:
        """σ((z − log p) / T); subtracting log p undoes the weight p that class 1 had in the loss."""
        if not self.options.calibrate:
            return output
        z = logit(as_probability(output))
        if self.pos_weight is not None:
            z = z - self.pos_weight.double().log()
        return torch.sigmoid(z / self.temperature.double()).to(output.dtype)

    def setup(self, stage: str) -> None:
        """Fit the preprocessing on the training rows, if the data are a `TabularDataModule`.

        When a run resumes, its checkpoint (`ckpt_path`) replaces the result afterwards.
        """
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, TabularDataModule):
            self.preprocess.fit(data.training_features())
            if self.options.pos_weight == "auto" and self.pos_weight is not None:
                negative, positive = data.class_counts()
                self.pos_weight.fill_(negative / positive)
        elif stage == "fit" and self.options.pos_weight == "auto":
            raise ValueError("pos_weight is auto, which needs a TabularDataModule: give a number instead.")
        elif stage == "fit" and not self.preprocess.is_fitted:
            rank_zero_warn(
                "BinaryClassifier trains on raw features: nothing is standardised without a TabularDataModule. "
                "Call model.preprocess.fit(features) with the training rows first."
            )

    @property
    def own_trainer(self) -> pl.Trainer | None:
        """The trainer, or None if the model has not been given to one; Lightning's `trainer` would raise."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    def configure_model(self) -> None:
        """With FSDP2, shard the network over the processes as one unit, so that its loss is still one pass."""
        if self.own_trainer is not None and isinstance(self.own_trainer.strategy, ModelParallelStrategy):
            shard([self.preprocess, self.network], self.device_mesh)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Convert to float64 first if the run is in float64; Lightning would load the weights before it converts."""
        if self.own_trainer is not None and self.own_trainer.precision == "64-true":
            self.double()

    def configure_optimizers(self) -> Any:
        options, trainer = self.options, self.own_trainer
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
        config = {
            "scheduler": make_schedule(options.lr_scheduler, optimiser, args),
            "interval": options.lr_scheduler_interval,
        }
        if on_plateau:
            if options.lr_scheduler_interval == "step":
                raise ValueError(
                    "lr_scheduler_interval is step: ReduceLROnPlateau needs the validation loss, so set it to epoch."
                )
            validates = trainer is None or trainer.enable_validation
            config["monitor"] = "val_loss" if validates else "train_loss"
            config["strict"] = False  # max_steps may end a run before its first validation
            if trainer is not None and validates:
                config["frequency"] = trainer.check_val_every_n_epoch or 1
        return [optimiser], [config]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        try:
            super().lr_scheduler_step(scheduler, metric)
        except (ArithmeticError, TypeError, ValueError) as error:
            name, args = self.options.lr_scheduler, self.options.lr_scheduler_args
            raise ScheduleError(f"{name} fails with lr_scheduler_args {args} ({error}).") from error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, weight = self._inputs(batch)
        loss: Tensor = self.network(x, y, weight, self.pos_weight, reduction_of(y), loss=self.options.loss)
        share = share_of(self.own_trainer, batch_idx, len(y), y.device)
        logged = loss if share.of_batch == 1 else loss * share.of_batch
        self.log(
            *("train_loss", logged), on_step=False, on_epoch=True, prog_bar=True, batch_size=share.rows, sync_dist=True
        )
        if share.of_step != 1:
            loss = loss * share.of_step
        several = self.own_trainer is not None and self.own_trainer.world_size > 1
        if several and self.options.optimizer in USES_THE_LOSS:
            loss = loss + (self.trainer.strategy.reduce(loss.detach().clone()) - loss).detach()
        return loss

    def on_validation_epoch_start(self) -> None:
        self.val_rows.reset()
        set_threshold(self.metrics["val"], self.threshold)  # type: ignore[arg-type]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        output, target, weight = self._evaluate(batch, "val")
        if self._chooses:
            self.val_rows.update(logit(as_probability(output)), target, weight)

    def on_validation_epoch_end(self) -> None:
        """Choose temperature and threshold before this epoch's checkpoint is written."""
        if not self._chooses or not self.val_rows.update_called:
            return
        logits, target, weight = self.val_rows.compute()
        if self.options.calibrate:
            shift = 0.0 if self.pos_weight is None else float(self.pos_weight.double().log())
            self.temperature.fill_(best_temperature(logits - shift, target, weight))
        rule = self.options.threshold
        if isinstance(rule, str):
            chosen = best_threshold(
                cast("ThresholdRule", rule),
                self._calibrated(torch.sigmoid(logits)),
                target,
                weight,
                cost_ratio=self.options.cost_ratio,
                min_recall=self.options.min_recall,
            )
            self.chosen_threshold.fill_(chosen)

    def on_test_epoch_start(self) -> None:
        self.held_out.reset()
        set_threshold(self.metrics["test"], self.threshold)  # type: ignore[arg-type]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        output, target, weight = self._evaluate(batch, "test")
        self.held_out.update(as_probability(self._calibrated(output)), target, weight)

    @property
    def _chooses(self) -> bool:
        """Whether the current validation has to choose a temperature or a threshold."""
        return (self.options.calibrate or isinstance(self.options.threshold, str)) and self.trainer.state.fn == "fit"

    def _inputs(self, batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input of the network (rows, features), target (rows, 1), and weight of each row (rows, 1) or None."""
        batch = as_batch(batch)
        x: Tensor = self.preprocess(batch.features)
        weight = None if batch.weight is None else batch.weight.unsqueeze(-1).to(x.dtype)
        return x, batch.target.unsqueeze(-1).to(x.dtype), weight

    def _evaluate(self, batch: Any, stage: str) -> tuple[Tensor, Tensor, Tensor]:
        """Update and log losses and metrics; return output of the network, target and weight, each (rows, 1)."""
        x, y, given_weight = self._inputs(batch)
        options = self.options
        loss, output = self.network(
            x, y, given_weight, self.pos_weight, reduction_of(y), loss=options.loss, return_output=True
        )
        weight = torch.ones_like(y) if given_weight is None else given_weight
        # The temperature is not applied while it is being chosen.
        calibrated = output if self._chooses else self._calibrated(output)
        probability = as_probability(calibrated)
        if options.loss == "mse" or calibrated is not output:
            log_loss = binary_cross_entropy(
                probability, y.to(probability.dtype), given_weight, reduction=reduction_of(y)
            )
        else:
            log_loss = loss if self.pos_weight is None else self.network.loss(x, y, given_weight, None, reduction_of(y))

        metrics: Any = self.metrics[stage]
        metrics.update(probability, y.round().int())
        self.log_dict(metrics)
        losses: tuple[Any, Any] = self.losses[stage], self.log_losses[stage]
        for name, metric, value in zip(("loss", "log_loss"), losses, (loss, log_loss), strict=True):
            metric.update(value, weight)
            self.log(f"{stage}_{name}", metric, prog_bar=(stage, name) == ("val", "loss"))
        return output, y, weight


def reduction_of(target: Tensor) -> str:
    """mean; but sum for a batch without rows, where the loss and its gradients are then 0 instead of NaN."""
    return "mean" if len(target) else "sum"


def check_numbers(
    hidden_sizes: Sequence[int],
    lr: float,
    weight_decay: float | Literal["auto"],
    pos_weight: float | Literal["auto"],
    threshold: float | ThresholdRule,
    cost_ratio: float,
    min_recall: float,
) -> None:
    """Raise ValueError naming the first argument that is out of range."""
    for position, size in enumerate(hidden_sizes):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"hidden_sizes[{position}] is {size}: a hidden layer needs at least 1 neuron.")
    positive = {"lr": lr, "pos_weight": 1.0 if pos_weight == "auto" else pos_weight, "cost_ratio": cost_ratio}
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: give a finite number above 0.")
    if weight_decay != "auto" and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay is {weight_decay}: give auto or a finite number that is 0 or more.")
    if not isinstance(threshold, str) and not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}: give a number between 0 and 1.")
    if not 0 < min_recall <= 1:
        raise ValueError(f"min_recall is {min_recall}: give a number above 0 and at most 1.")


def check_loss(loss: str, last_activation: str, pos_weight: float | Literal["auto"], calibrate: bool) -> None:
    """Raise ValueError unless the loss is known and fits the output's activation and the positive-class weight."""
    if loss == "binary_cross_entropy" and last_activation != "sigmoid":
        raise ValueError(
            f"output_activation is {last_activation}: binary_cross_entropy needs the probabilities of sigmoid; the mse "
            "loss takes any output."
        )
    check_loss_name(loss, None if pos_weight == 1 else 1.0 if pos_weight == "auto" else pos_weight)
    if calibrate and last_activation != "sigmoid":
        raise ValueError(
            f"calibrate needs logits, which a {last_activation} output does not have: set output_activation to sigmoid."
        )
