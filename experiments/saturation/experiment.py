"""Loss and gradient of a sigmoid with binary cross-entropy, by torch and by torchnn, against exact arithmetic."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import mpmath
import torch
from torch import Tensor, nn

import torchnn

from ..common.command import Experiment, Run
from ..common.errors import UnavailableError
from ..common.plots import BLACK, BLUE, GREEN, VERMILION, new_figure
from ..common.results import Figure, Tables, numbers, where

LIMIT = 200
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
APART, LOGITS = "Sigmoid, BCELoss", "BCEWithLogitsLoss"
OUR_LOGITS, OUR_MLP = "torchnn.BCEWithLogitsLoss", "torchnn.MLP"
BITS = 400  # enough digits for log(1 + exp(−200))
NEAR = 40
LOST = 0.5  # fraction of the true gradient; a loss this large is not rounding
Exact = Any  # a number of mpmath, which has no type annotations


def apart(z: Tensor, y: Tensor) -> Tensor:
    return nn.BCELoss(reduction="none")(nn.Sigmoid()(z), y)  # type: ignore[no-any-return]


def with_logits(z: Tensor, y: Tensor) -> Tensor:
    return nn.BCEWithLogitsLoss(reduction="none")(z, y)  # type: ignore[no-any-return]


def our_logits(z: Tensor, y: Tensor) -> Tensor:
    return torchnn.BCEWithLogitsLoss(reduction="none")(z, y)  # type: ignore[no-any-return]


def our_network(z: Tensor, y: Tensor) -> Tensor:
    """A network of one sigmoid neuron with weight 1, so the gradient of its input is δ."""
    network = torchnn.MLP([1, 1], bias=False, device=z.device, dtype=z.dtype)
    nn.init.ones_(network.layers[0].weight)  # type: ignore[arg-type]
    loss: Tensor = network(z, y, reduction="none")
    return loss


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    APART: apart,
    LOGITS: with_logits,
    OUR_LOGITS: our_logits,
    OUR_MLP: our_network,
}


def loss_and_gradient(way: str, z: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The loss of each z (rows, 1), and its gradient with respect to z."""
    z = z.clone().requires_grad_()
    loss = WAYS[way](z, torch.full_like(z, target))
    (gradient,) = torch.autograd.grad(loss, z, torch.ones_like(loss))
    return loss.detach(), gradient


@cache
def exact(z: float, target: int) -> tuple[Exact, Exact]:
    with mpmath.workprec(BITS):
        sign = -1 if target else 1  # softplus(−z) and −σ(−z) for y = 1, softplus(z) and σ(z) for y = 0
        return mpmath.log1p(mpmath.exp(sign * mpmath.mpf(z))), sign / (1 + mpmath.exp(-sign * mpmath.mpf(z)))


def ulps(value: float, truth: Exact, dtype: torch.dtype) -> float:
    """Error in units of the distance between numbers of `dtype` near the truth."""
    unit = mpmath.mpf(2) ** mpmath.floor(mpmath.log(abs(truth), 2)) * mpmath.mpf(torch.finfo(dtype).eps)
    with mpmath.workprec(BITS):
        return float(abs(mpmath.mpf(value) - truth) / unit)


def worst_ulps(values: Sequence[float], truth: Sequence[Exact], dtype: torch.dtype) -> float:
    """The largest error over the values whose truth is a normal number of `dtype`; NaN if a value is NaN."""
    smallest = torch.finfo(dtype).tiny
    errors = [
        ulps(value, exactly, dtype) for value, exactly in zip(values, truth, strict=True) if abs(exactly) >= smallest
    ]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def first_lost(z: Sequence[float], slopes: Sequence[float], truth: Sequence[Exact]) -> tuple[float, float] | None:
    """The smallest |z| at which more than half of a true gradient above a half is lost, and the gradient there."""
    pairs = zip(z, slopes, truth, strict=True)
    lost = [(abs(one), slope) for one, slope, exactly in pairs if abs(exactly) > LOST > abs(slope) or math.isnan(slope)]
    return min(lost) if lost else None


def is_in_curves(z: float) -> bool:
    """Whole numbers near 0, where the changes are, and multiples of ten beyond."""
    return z % (1 if abs(z) <= NEAR else 10) == 0


def measure(run: Run, step: float = 0.125) -> dict[str, list[dict[str, object]]]:
    """Measure z from −200 to 200.

    Args:
        run: Trainer arguments and progress display.
        step: distance between two values of z; bfloat16 and float16 round z to their nearest number.
    """
    if not 0 < step <= 1:
        raise UnavailableError(f"--step is {step}, but must be above 0 and at most 1.")
    worst: list[dict[str, object]] = []
    curves: list[dict[str, object]] = []
    grid = torch.arange(-LIMIT, LIMIT + step / 2, step, dtype=torch.float64, device=run.device)
    for name, dtype in DTYPES.items():
        z = grid.to(dtype).unique().unsqueeze(1)
        values = z.squeeze(1).tolist()
        for target in (0, 1):
            losses, slopes = zip(*(exact(value, target) for value in values), strict=True)
            by_way = {}
            for way in WAYS:
                run.show_progress(f"{name}, y = {target}, {way}")
                loss, slope = (result.squeeze(1).tolist() for result in loss_and_gradient(way, z, target))
                by_way[way] = loss, slope
                lost = first_lost(values, slope, slopes)
                worst.append(
                    {
                        "dtype": name,
                        "target": target,
                        "way": way,
                        "worst_loss_ulp": f"{worst_ulps(loss, losses, dtype):.3g}",
                        "worst_gradient_ulp": f"{worst_ulps(slope, slopes, dtype):.3g}",
                        "gradient_lost_from_abs_z": lost[0] if lost else "never",
                        "gradient_there": f"{lost[1]:.3g}" if lost else "",
                        "largest_loss": f"{max(loss):.6g}",
                    }
                )
            curves += [
                {
                    "dtype": name,
                    "target": target,
                    "z": f"{value:g}",
                    "loss exact": mpmath.nstr(losses[i], 6),
                    "gradient exact": mpmath.nstr(slopes[i], 6),
                    **{f"loss {way}": f"{by_way[way][0][i]:.6g}" for way in WAYS},
                    **{f"gradient {way}": f"{by_way[way][1][i]:.6g}" for way in WAYS},
                }
                for i, value in enumerate(values)
                if is_in_curves(value)
            ]
    return {"worst": worst, "curves": curves}


def figures(tables: Tables) -> list[Figure]:
    def cell(dtype: str, target: int, column: str = "gradient_lost_from_abs_z", way: str = APART) -> str:
        (row,) = where(tables["worst"], dtype=dtype, target=target, way=way)
        return row[column]

    def worst(ways: tuple[str, ...], dtypes: tuple[str, ...], column: str) -> str:
        return f"{max(numbers((r for r in tables['worst'] if r['way'] in ways and r['dtype'] in dtypes), column)):.2g}"

    never = {row["gradient_lost_from_abs_z"] for row in tables["worst"] if row["way"] in (OUR_LOGITS, OUR_MLP)}
    found = [
        Figure(
            "`z` from which `Sigmoid` followed by `BCELoss` loses the gradient, y = 0, float32 / bfloat16",
            "17 / 6.25 (derivation)",
            f"{cell('float32', 0)} / {cell('bfloat16', 0)}",
        ),
        Figure(
            "−`z` from which it is lost for y = 1, float32 / float64, because `a(1 − a)` is below a clamp",
            "28 (−ln 1e−12 = 27.6; half is lost at 28.3)",
            f"{cell('float32', 1)} / {cell('float64', 1)}",
        ),
        Figure(
            "\\|z\\| from which it is lost in float16, y = 0 / y = 1, and the gradient there",
            "not published: 1e−12 is 0 in float16, and 0/0 is NaN",
            f"{cell('float16', 0)} / {cell('float16', 1)}, {cell('float16', 0, 'gradient_there')}",
        ),
        Figure(
            "largest loss of the two, y = 0, float32, where the truth is 200", "100", cell("float32", 0, "largest_loss")
        ),
        Figure("`z` from which torchnn loses the gradient, all dtypes and targets", "never", ", ".join(sorted(never))),
    ]
    for dtypes, bound in (
        (("float64", "float32"), "1.6 (docs/modules.md)"),
        (("bfloat16", "float16"), "1 (rounded once)"),
    ):
        for column, what in (("worst_loss_ulp", "loss"), ("worst_gradient_ulp", "gradient")):
            found.append(
                Figure(
                    f"largest error of torchnn's {what}, {' and '.join(dtypes)}, in ulp, for normal numbers",
                    f"≤ {bound}",
                    f"{worst((OUR_LOGITS, OUR_MLP), dtypes, column)} (torch's `BCEWithLogitsLoss`: "
                    f"{worst((LOGITS,), dtypes, column)})",
                )
            )
    return found


def draw(tables: Tables) -> dict[str, Any]:
    figure, all_axes = new_figure(len(DTYPES), 3, size=(3.1, 2.3), share_x=True)
    lines = ((APART, VERMILION, "--", "s"), (LOGITS, BLUE, "-", "^"), (OUR_MLP, GREEN, "none", "o"))
    rows_of_axes = (
        *((0, "loss", "loss, y = 0 (nats)"), (0, "gradient", "∂loss/∂z, y = 0"), (1, "gradient", "∂loss/∂z, y = 1")),
    )
    for row, (target, kind, label) in enumerate(rows_of_axes):
        for axes, dtype in zip(all_axes[row], DTYPES, strict=True):
            curve = where(tables["curves"], dtype=dtype, target=target)
            z = numbers(curve, "z")
            axes.plot(z, numbers(curve, f"{kind} exact"), color=BLACK, linewidth=5, alpha=0.25, label="exact")
            for way, colour, line, mark in lines:
                values = numbers(curve, f"{kind} {way}")
                axes.plot(
                    *(z, values), color=colour, linestyle=line, marker=mark, markersize=5,
                    markevery=(4 if way == LOGITS else 0, 8), fillstyle="none" if way == OUR_MLP else "full", label=way,
                )  # fmt: skip
                no_number = [one for one, value in zip(z, values, strict=True) if math.isnan(value)]
                if no_number:
                    height = 0.5 if target == 0 else -0.5
                    for start in (min(no_number), min((one for one in no_number if one > 0), default=0)):
                        axes.annotate(f"{way}:\nNaN", (start, height), color=colour, fontsize="small")
            axes.set_xlim(-LIMIT, LIMIT)
            if row == 0:
                axes.set_title(dtype)
        all_axes[row][0].set_ylabel(label)
    for axes in all_axes[-1]:
        axes.set_xlabel("z")
    figure.legend(*all_axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return {"saturation.png": figure}


EXPERIMENT = Experiment(
    "saturation",
    "What is left of loss and gradient where a sigmoid saturates?",
    measure,
    figures,
    draw,
)
