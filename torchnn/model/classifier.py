"""The classifier: an `MLP` with its preprocessing, trained by Lightning through the hand-derived backward."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchnn.data.batches import as_batch
from torchnn.data.module import TabularDataModule
from torchnn.data.shares import share_of
from torchnn.functional import binary_cross_entropy
from torchnn.model.arguments import check_loss, check_numbers
from torchnn.model.decisions import ThresholdRule, as_probability, best_temperature, best_threshold, logit
from torchnn.model.defaults import HIDDEN_SIZES, LR, PLATEAU, decay_for, steps_per_epoch
from torchnn.model.metrics import EveryRow, MeanLoss, evaluation_metrics, set_threshold
from torchnn.model.optimisers import ScheduleError, make_optimiser, make_schedule
from torchnn.model.predictor import Predictor
from torchnn.model.preprocess import Categories, Preprocess, Scaling
from torchnn.model.sharded import shard
from torchnn.modules.mlp import MLP
from torchnn.tables.columns import Schema

LOOKS_AT_THE_LOSS = ("LBFGS",)  # which ends its steps by it, so that all processes have to see the same


class BinaryClassifier(Predictor):
    """A network for two classes that takes the raw columns of a table and returns the probability of class 1.

    Args:
        in_features: number of columns of the raw matrix; the command line takes it from the data.
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
        pos_weight: weight of class 1 in the loss, above 0; auto for rows of class 0 by those of class 1; not for mse.
        threshold: probability from which a row is called class 1, between 0 and 1; or how validation chooses it: f1 for
            the highest F1, cost for the least cost of mistakes, recall for the highest one with at least min_recall.
        cost_ratio: what a missed row of class 1 costs, as a multiple of a false alarm, above 0; for threshold cost.
        min_recall: fraction of class 1 that has to be found, between 0 and 1; for threshold recall.
        calibrate: whether validation chooses a temperature that divides the logits, after the log of pos_weight is
            taken off them, so that probabilities are frequencies again.
        scaling: of numbers: standard (mean and standard deviation), robust (median and quartiles), or none.
        categories: one_hot, embed, or auto: one-hot up to 32 values, embeddings above.
        schema: what a trained model knows of its columns; the command line takes it from the data.

    Shapes: raw features (rows, in_features), where a category is its code and NaN is missing if there is a schema;
    probabilities (rows, 1). A loader gives `torchnn.data.batches.Batch`, or pairs of features (rows, in_features)
    and target (rows,) or (rows, 1).

    Raises:
        ValueError: an argument outside what is said above; the message names it.

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
        # Known only from the training rows, "auto" has to travel with the weights.
        initial = None if pos_weight == 1 else torch.tensor(1.0 if pos_weight == "auto" else pos_weight)
        self.register_buffer("pos_weight", initial, persistent=pos_weight == "auto")
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("chosen_threshold", torch.tensor(0.5))
        self.configure_optimizers()  # refuses wrong names and arguments now, not after minutes of reading data
        stages = ("val", "test")
        self.metrics = torch.nn.ModuleDict({stage: evaluation_metrics(stage) for stage in stages})
        self.losses = torch.nn.ModuleDict({stage: MeanLoss() for stage in stages})
        self.log_losses = torch.nn.ModuleDict({stage: MeanLoss() for stage in stages})
        self.choice = EveryRow()  # logits of the validation rows
        self.held_out = EveryRow()  # probabilities of the test rows

    def forward(self, features: Tensor) -> Tensor:
        """The output for raw features (rows, in_features), calibrated if asked for; shape (rows, 1)."""
        return self._calibrated(self.network(self.preprocess(features)))

    def _calibrated(self, output: Tensor) -> Tensor:
        """σ((z − log p)/T): of a network whose loss weighted class 1 by p, the logits of the unweighted problem."""
        if not self.options.calibrate:
            return output
        z = logit(as_probability(output))
        if self.pos_weight is not None:
            z = z - self.pos_weight.double().log()
        return torch.sigmoid(z / self.temperature.double()).to(output.dtype)

    def setup(self, stage: str) -> None:
        """Fit the preprocessing on the training rows of a `TabularDataModule`, and leave it alone with other data.

        A checkpoint that is resumed from (`ckpt_path`) replaces it afterwards.
        """
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, TabularDataModule):
            self.preprocess.fit(data.training_features())
            if self.options.pos_weight == "auto" and self.pos_weight is not None:
                negative, positive = data.class_counts()
                self.pos_weight.fill_(negative / positive)
        elif stage == "fit" and self.options.pos_weight == "auto":
            raise ValueError("pos_weight is auto, which needs a TabularDataModule: give a number.")
        elif stage == "fit" and not self.preprocess.is_fitted:
            rank_zero_warn(
                "BinaryClassifier trains on raw features: without a TabularDataModule nothing is standardised. "
                "Call model.preprocess.fit(features) before, with the training rows."
            )

    def configure_model(self) -> None:
        """Share the network out over the processes under FSDP2: one unit, whose loss is still one pass."""
        if self._trainer is not None and isinstance(self.trainer.strategy, ModelParallelStrategy):
            shard([self.preprocess, self.network], self.device_mesh)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Weights of a run in float64 are read before Lightning makes the network one of float64: make it now."""
        if self._trainer is not None and self.trainer.precision == "64-true":
            self.double()

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
        x, y, weight = self._inputs(batch)
        loss: Tensor = self.network(x, y, weight, self.pos_weight, reduction_of(y), loss=self.options.loss)
        share = share_of(self._trainer, batch_idx, len(y), y.device)
        logged = loss if share.of_batch == 1 else loss * share.of_batch
        self.log(
            *("train_loss", logged), on_step=False, on_epoch=True, prog_bar=True, batch_size=share.rows, sync_dist=True
        )
        if share.of_step != 1:
            loss = loss * share.of_step
        if self.options.optimizer in LOOKS_AT_THE_LOSS and self._trainer is not None and self.trainer.world_size > 1:
            loss = loss + (self.trainer.strategy.reduce(loss.detach().clone()) - loss).detach()
        return loss

    def on_validation_epoch_start(self) -> None:
        self.choice.reset()
        set_threshold(self.metrics["val"], self.threshold)  # type: ignore[arg-type]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        output, target, weight = self._evaluate(batch, "val")
        if self._chooses:
            self.choice.update(logit(as_probability(output)), target, weight)

    def on_validation_epoch_end(self) -> None:
        """Choose temperature and threshold before the checkpoint of this epoch is written."""
        if not self._chooses or not self.choice.update_called:
            return
        logits, target, weight = self.choice.compute()
        if self.options.calibrate:
            shift = 0.0 if self.pos_weight is None else float(self.pos_weight.double().log())
            self.temperature.fill_(best_temperature(logits - shift, target, weight))
        rule = self.options.threshold
        if isinstance(rule, str):
            served = self._calibrated(torch.sigmoid(logits))
            chosen = best_threshold(
                cast("ThresholdRule", rule), served, target, weight, self.options.cost_ratio, self.options.min_recall
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
        """Whether this epoch of validation has a temperature or a threshold to choose."""
        return (self.options.calibrate or isinstance(self.options.threshold, str)) and self.trainer.state.fn == "fit"

    def _inputs(self, batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the network takes (rows, features), target (rows, 1), and the weight of each row (rows, 1) or None."""
        batch = as_batch(batch)
        x: Tensor = self.preprocess(batch.features)
        weight = None if batch.weight is None else batch.weight.unsqueeze(-1).to(x.dtype)
        return x, batch.target.unsqueeze(-1).to(x.dtype), weight

    def _evaluate(self, batch: Any, stage: str) -> tuple[Tensor, Tensor, Tensor]:
        """Log loss and metrics; output of the network, target and weight, each (rows, 1)."""
        x, y, given_weight = self._inputs(batch)
        options = self.options
        loss, output = self.network(
            x, y, given_weight, self.pos_weight, reduction_of(y), loss=options.loss, return_output=True
        )
        weight = torch.ones_like(y) if given_weight is None else given_weight
        served = output if self._chooses else self._calibrated(output)  # what is being chosen is not served yet
        probability = as_probability(served)
        if options.loss == "mse" or served is not output:
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
    """Mean, but of no rows, which have none, their sum: 0, with gradients that are 0."""
    return "mean" if len(target) else "sum"
