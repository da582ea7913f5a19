"""The four ways to train, and callbacks that record loss and memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

import torchnn
from torchnn.model.defaults import LR
from torchnn.training import BinaryClassifier, TabularDataModule

from ..common.memory import ExtraMemory

FEW = 1024  # rows of a mini-batch; torchnn's default for this number of rows
RATE = 4.0  # learning rate of gradient descent
SEED = 0
BETWEEN_POINTS = 2  # passes between two points of the curve


@dataclass(frozen=True)
class Way:
    """An optimiser and its batch size; None means all rows in one batch."""

    optimizer: str
    lr: float
    batch_size: int | None
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    lr_scheduler: str | None = None


LBFGS, DESCENT = "L-BFGS, one batch", "gradient descent, one batch"
DESCENT_ON_FEW, DEFAULT = f"gradient descent, batches of {FEW:,}", f"torchnn's default: AdamW, batches of {FEW:,}"
WAYS = {
    LBFGS: Way("LBFGS", 1.0, None, {"max_iter": 10, "history_size": 20, "line_search_fn": "strong_wolfe"}),
    DESCENT: Way("SGD", RATE, None),
    DESCENT_ON_FEW: Way("SGD", RATE, FEW),
    DEFAULT: Way("AdamW", LR, FEW, lr_scheduler="ReduceLROnPlateau"),
}


def classifier(data: TabularDataModule, way: Way) -> BinaryClassifier:
    """A classifier with torchnn's default layers and the same initial weights for every way."""
    torch.manual_seed(SEED)
    model = BinaryClassifier(
        data.num_features,
        optimizer=way.optimizer,
        optimizer_args=way.optimizer_args,
        lr=way.lr,
        lr_scheduler=way.lr_scheduler,
        schema=data.plain_schema,
    )
    model.preprocess.fit(data.table.features)
    return model


class Curve(Callback):
    """Records the loss of all rows during training.

    Args:
        x: raw features of all rows.
        y: their target.
        steps: number of steps in a pass through the rows.
        passes: number of passes after which the run ends. Every gradient of all rows counts, line search included.

    Attributes:
        points: passes, seconds and loss; the time of computing this loss is not counted.
    """

    def __init__(self, x: Tensor, y: Tensor, steps: int, passes: int) -> None:
        self.x, self.y, self.steps, self.passes = x, y.unsqueeze(1), steps, passes
        self.gradients, self.seconds, self.began = 0, 0.0, 0.0
        self.next_point = 0.0  # in passes
        self.points: list[dict[str, object]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.record(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.gradients += 1  # L-BFGS computes several in a step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        finish(pl_module.device)
        self.seconds += time.perf_counter() - self.began
        trainer.should_stop = self.gradients >= self.passes * self.steps
        if trainer.should_stop or self.gradients >= self.next_point * self.steps:
            self.record(pl_module)

    @torch.no_grad()
    def record(self, module: Any) -> None:
        x, y = self.x.to(module.device), self.y.to(module.device)
        loss = float(module.network(module.preprocess(x), y))
        passes = self.gradients / self.steps
        self.next_point = passes + BETWEEN_POINTS
        self.points.append({"passes": f"{passes:g}", "seconds": f"{self.seconds:.3f}", "loss": f"{loss:.6f}"})


class Peak(Callback):
    """Extra memory of one step, from its batch to the changed weights.

    Args:
        step: number of the step, counted from 0. The first steps also allocate memory that stays.
    """

    def __init__(self, step: int) -> None:
        self.step, self.extra_bytes = step, 0

    def on_train_batch_start(self, trainer: Any, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            self.memory = ExtraMemory(pl_module.device)

    def on_train_batch_end(
        self, trainer: Any, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step + 1:
            self.extra_bytes = self.memory.bytes


class ByAutograd(nn.Module):
    """The network and loss of a sigmoid MLP in torch's own modules, sharing the parameters of the MLP."""

    def __init__(self, network: torchnn.MLP) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        own_layers: Sequence[Any] = list(network.layers)
        for own in own_layers:
            linear = nn.Linear(own.in_features, own.out_features)
            linear.weight, linear.bias = own.weight, own.bias
            layers += [linear, nn.Sigmoid()]
        self.layers, self.criterion = nn.Sequential(*layers), nn.BCELoss()

    def forward(self, x: Tensor, target: Tensor, *no_weights: None, loss: str = "binary_cross_entropy") -> Tensor:
        value: Tensor = self.criterion(self.layers(x), target)
        return value


def finish(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
