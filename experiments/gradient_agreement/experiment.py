"""Errors of hand-derived gradients and of autograd's, by depth and dtype."""

import math
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import torchnn

from ..common.command import Experiment, Run
from ..common.plots import COLOURS, new_figure
from ..common.results import Figure, Tables, numbers, where

WIDTH, ROWS = 64, 256
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OURS, APART, LOGITS = "torchnn.MLP", "autograd, BCELoss", "autograd, BCEWithLogitsLoss"
WAYS = (OURS, APART, LOGITS)
PARTS = {"network": "whole network", "first_layer": "weights of the first layer"}


def torch_network(sizes: list[int], parameters: list[Tensor], logits: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), nn.Sigmoid()]
    network = nn.Sequential(*(layers[:-1] if logits else layers)).to(parameters[0])
    with torch.no_grad():
        for own, given in zip(network.parameters(), parameters, strict=True):
            own.copy_(given)
    return network


def gradients(way: str, sizes: list[int], parameters: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """∂W[1], ∂b[1], ∂W[2] … in float64, computed in the dtype of the parameters."""
    if way == OURS:
        network: nn.Module = torchnn.MLP(sizes).to(parameters[0])
        network.load_state_dict(dict(zip(network.state_dict(), parameters, strict=True)))
        loss = network(x, y)
    else:
        network = torch_network(sizes, parameters, logits=way == LOGITS)
        criterion = nn.BCEWithLogitsLoss() if way == LOGITS else nn.BCELoss()
        loss = criterion(network(x), y)
    return [gradient.double() for gradient in torch.autograd.grad(loss, list(network.parameters()))]


def relative_error(found: list[Tensor], truth: list[Tensor]) -> float:
    """‖found − truth‖ / ‖truth‖ over all elements of all tensors."""
    difference = torch.cat([(f - t).flatten() for f, t in zip(found, truth, strict=True)])
    return float(difference.norm() / torch.cat([t.flatten() for t in truth]).norm())


def measure(run: Run, depths: int = 16, seeds: int = 5) -> dict[str, list[dict[str, object]]]:
    """Measure networks of 1 to 16 layers of 64 sigmoid neurons on 256 normally distributed rows.

    Args:
        run: Trainer arguments and progress display.
        depths: number of layers of the deepest network.
        seeds: number of seeds for weights and rows; the tables contain medians.
    """
    rows: list[dict[str, object]] = []
    for depth in range(1, depths + 1):
        run.show_progress(f"{depth} layers")
        sizes = [WIDTH] * depth + [1]
        errors: dict[tuple[str, str, str], list[float]] = {}
        for seed in range(seeds):
            torch.manual_seed(seed)
            drawn = [parameter.detach() for parameter in torchnn.MLP(sizes, dtype=torch.float64).parameters()]
            x64, y64 = torch.randn(ROWS, WIDTH, dtype=torch.float64), torch.rand(ROWS, 1, dtype=torch.float64).round()
            for name, dtype in DTYPES.items():
                # The truth uses the rounded weights and rows: their rounding is not an error of the gradient.
                parameters = [parameter.to(run.device, dtype) for parameter in drawn]
                x, y = x64.to(run.device, dtype), y64.to(run.device, dtype)
                exactly = [parameter.double() for parameter in parameters], x.double(), y.double()
                truth = gradients(LOGITS, sizes, *exactly)
                for way in WAYS:
                    found = gradients(way, sizes, parameters, x, y)
                    errors.setdefault((name, way, "network"), []).append(relative_error(found, truth))
                    errors.setdefault((name, way, "first_layer"), []).append(relative_error(found[:1], truth[:1]))
        rows += [
            {"depth": depth, "dtype": name, "way": way}
            | {part: f"{median_or_nan(errors[name, way, part]):.3e}" for part in PARTS}
            for name in DTYPES
            for way in WAYS
        ]
    return {"errors": rows}


def median_or_nan(values: list[float]) -> float:
    """The median, or NaN if a value is NaN; `statistics.median` would sort NaN anywhere."""
    return math.nan if any(map(math.isnan, values)) else median(values)


def compared(tables: Tables, dtype: str, other: str, part: str) -> str:
    """Median and maximum, over the depths, of torchnn's error divided by that of another way."""
    ours, theirs = (numbers(where(tables["errors"], dtype=dtype, way=way), part) for way in (OURS, other))
    ratios = [mine / its for mine, its in zip(ours, theirs, strict=True) if not math.isnan(its)]
    broken = ", ".join(str(depth) for depth, its in enumerate(theirs, 1) if math.isnan(its))
    said = f"{median(ratios):.2f}, {max(ratios):.2f}" if ratios else "–"
    return said + (f"; its own gradient is NaN with {broken} layers" if broken else "")


def figures(tables: Tables) -> list[Figure]:
    def largest(dtype: str, part: str) -> float:
        return max(numbers(where(tables["errors"], dtype=dtype, way=OURS), part))

    found = [
        Figure(
            "relative error of torchnn's gradient, float32, the largest over the depths: whole network, first layer",
            "≤ 1e−6 (a few units of 1.2e−7)",
            f"{largest('float32', 'network'):.1e}, {largest('float32', 'first_layer'):.1e}",
        ),
        Figure(
            "torchnn against autograd in float64",
            "≤ 1e−14",
            f"{largest('float64', 'network'):.1e}, {largest('float64', 'first_layer'):.1e}",
        ),
    ]
    for dtype in list(DTYPES)[1:]:
        for part, label in PARTS.items():
            apart, logits = (compared(tables, dtype, way, part) for way in (APART, LOGITS))
            found.append(
                Figure(
                    f"torchnn's error divided by autograd's, {dtype}, {label}: median, largest over the depths",
                    "about 1 or less",
                    f"`BCELoss` {apart}; `BCEWithLogitsLoss` {logits}",
                )
            )
    return found


def draw(tables: Tables) -> dict[str, Any]:
    figure, (all_axes,) = new_figure(2, size=(5, 4.2), share_y=True)
    styles = {OURS: ("-", "o"), APART: (":", "s"), LOGITS: ("--", "x")}
    for axes, (part, label) in zip(all_axes, PARTS.items(), strict=True):
        for colour, dtype in zip(COLOURS, DTYPES, strict=False):
            for way, (line, mark) in styles.items():
                if dtype == "float64" and way == LOGITS:
                    continue  # the truth itself
                rows = where(tables["errors"], dtype=dtype, way=way)
                axes.plot(
                    *(numbers(rows, "depth"), numbers(rows, part)), color=colour, linestyle=line, marker=mark,
                    markersize=4, fillstyle="none", label=f"{dtype}, {way}",
                )  # fmt: skip
        axes.set_yscale("log")
        axes.set(xlabel="layers", title=label)
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("relative error of the gradient")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return {"errors.png": figure}


EXPERIMENT = Experiment(
    "gradient_agreement",
    "How close are hand-derived gradients and autograd's to the true ones?",
    measure,
    figures,
    draw,
)
