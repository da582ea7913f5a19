"""The measures of `torchnn explain`, taken while a network trains."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from torchnn.explain.measures import dead, lost_errors, relative_norms, saturated_share
from torchnn.explain.network import Layer, layers_of
from torchnn.explain.passes import forward
from torchnn.modules.mlp import MLP
from torchnn.ops.loss import binary_cross_entropy_with_logits_delta
from torchnn.runs.callbacks import new_figure, run_folder, save_figure

MOST_ROWS = 1024  # of a batch that are measured
SMALLEST = 1e-12  # norm of a gradient in the picture


class GradientHealth(Callback):
    """Logs norms of gradients and shares of saturated and dead neurons, and draws them into `gradient_health.png`.

    For each layer l it logs `gradient_norm/layer_l`, the norm of ∂J/∂W[l]; `gradient_ratio/layer_l`, that norm divided
    by the last layer's; `saturated/layer_l`, the share of outputs where g'(z) is below 1 % of its largest value
    (sigmoid and tanh); `dead/layer_l`, the share of neurons that are 0 on every measured row (relu). If the last
    layer is a sigmoid that trains on a target, it logs `lost_errors`: the share of outputs whose error BCELoss after
    Sigmoid would lose, and this library keeps. A measured step costs one more forward pass of at most 1,024 rows, and
    one wait for the device; any other step costs a comparison. The first process measures its own rows.

    Args:
        every_n_steps: optimiser steps between two measurements, 1 or more.

    Raises:
        ValueError: `every_n_steps` is below 1, or, when the fit starts, the module has no network of dense layers.

    >>> GradientHealth(every_n_steps=10).every_n_steps
    10
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: give 1 or more.")
        self.every_n_steps = every_n_steps
        self.history: dict[str, list[tuple[int, float]]] = {}
        self._given: tuple[Tensor, Tensor | None] | None = None
        self._hook: Any = None
        self._measured_step = -1

    def state_dict(self) -> dict[str, Any]:
        """All measurements so far, so that a resumed run draws the whole picture."""
        return dict(self.history)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        network_of(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before a measured step, start to record the input of the network."""
        due = trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._measured_step
        if due and trainer.is_global_zero and self._hook is None:
            self._hook = network_of(pl_module).register_forward_pre_hook(self._listen, with_kwargs=True)

    def _listen(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0].detach()
        target = args[1] if len(args) > 1 else kwargs.get("target")
        rows = x.reshape(-1, x.shape[-1])[:MOST_ROWS]
        self._given = rows, None if target is None else target.detach().reshape(-1, target.shape[-1])[:MOST_ROWS]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure at the point where gradients are complete and, in 16-bit precision, unscaled."""
        if self._given is None:
            return
        network, (x, target) = network_of(pl_module), self._given
        self._stop_listening()
        self._measured_step = trainer.global_step
        measured = measure(layers_of_untouched(network), x, target)
        for logger in trainer.loggers:
            logger.log_metrics(measured, step=trainer.global_step)
        for name, value in measured.items():
            self.history.setdefault(name, []).append((trainer.global_step, value))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_listening()
        folder = run_folder(trainer)
        if folder is not None and self.history:
            save_figure(draw(self.history), folder / "gradient_health.png")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._given = None


def network_of(pl_module: pl.LightningModule) -> nn.Module:
    """The network of a module: its first `MLP` or `Sequential` that can be explained.

    Raises:
        ValueError: it has neither.
    """
    for module in pl_module.modules():
        if type(module) in (MLP, nn.Sequential):
            try:
                layers_of_untouched(module)
            except ValueError:
                continue
            return module
    raise ValueError(
        f"GradientHealth finds no network in {type(pl_module).__name__}: give it an MLP, or a Sequential of linear "
        "layers and activations."
    )


def layers_of_untouched(network: nn.Module) -> list[Layer]:
    """`layers_of` of a network that may have hooks, ours among them; its parts may not."""
    if type(network) is MLP:
        return [layer for part in network.layers for layer in layers_of(part)]
    return layers_of(nn.Sequential(*network.children()))


@torch.no_grad()
def measure(layers: Sequence[Layer], x: Tensor, target: Tensor | None) -> dict[str, float]:
    """All logged values by name, with one wait for the device."""
    x = x.to(layers[0].weight.dtype)
    gradients = [torch.zeros_like(one.weight) if one.weight.grad is None else one.weight.grad for one in layers]
    zs, activations = forward(layers, x)
    norms = torch.stack([torch.linalg.vector_norm(gradient.float()) for gradient in gradients])
    found: dict[str, Tensor] = {}
    for number, (layer, a, norm, ratio) in enumerate(
        zip(layers, activations[1:], norms, relative_norms(gradients), strict=True), 1
    ):
        found[f"gradient_norm/layer_{number}"] = norm
        found[f"gradient_ratio/layer_{number}"] = ratio
        if layer.activation in ("sigmoid", "tanh"):
            found[f"saturated/layer_{number}"] = saturated_share(a, layer.activation).mean()
        if layer.activation == "relu":
            found[f"dead/layer_{number}"] = dead(a, layer.activation).float().mean()
    if layers[-1].activation == "sigmoid" and target is not None and target.shape == zs[-1].shape:
        delta = binary_cross_entropy_with_logits_delta(zs[-1], target).to(x.dtype)
        found["lost_errors"] = lost_errors(zs[-1], target.clamp(0, 1), delta).float().mean()
    values = torch.stack([value.float() for value in found.values()]).tolist()
    return dict(zip(found, values, strict=True))


def draw(history: dict[str, list[tuple[int, float]]]) -> Any:
    """A figure with the norms of the gradients above and the shares of neurons below, by step."""
    figure, axes = new_figure(rows=2)
    for name, points in history.items():
        kind, _, layer = name.partition("/")
        steps, values = zip(*points, strict=True)
        if kind == "gradient_norm":
            axes[0].plot(steps, [max(value, SMALLEST) for value in values], label=layer.replace("_", " "))
        elif kind != "gradient_ratio":
            label = f"{kind.replace('_', ' ')}, {layer.replace('_', ' ')}" if layer else kind.replace("_", " ")
            axes[1].plot(steps, values, label=label)
    axes[0].set(yscale="log", ylabel="norm of ∂J/∂W", title="Gradients by layer")
    axes[1].set(xlabel="step", ylabel="share", ylim=(-0.02, 1.02), title="Saturated and dead neurons")
    for one in axes:
        if one.lines:
            one.legend(fontsize="small")
    return figure
