"""Loss and gradients from logits against exact arithmetic, in both tails, in every dtype.

Bounds: 4 ulp for float32 and float64 over [−1000, 1000], for soft targets 4 ulp of the larger term, and 4·max(1, p) of
the smallest denormal where the result is below the smallest normal number. bfloat16 and float16 are rounded once from
float32: half an ulp of a result that may be a binade above its larger term, so 1 ulp of the term, plus the error of
float32 itself.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import mpmath
import pytest
import torch
from torch import Tensor

import torchnn.functional as F

mpmath.mp.prec = 200
Exact: TypeAlias = Any  # a number of mpmath, which has no types

TAILS = [0.0, -0.0, 1e-30, 21.0, 88.0, 89.0, 103.9, 104.5, 708.0, 710.0, 745.0, 1000.0]


def logits(dtype: torch.dtype) -> Tensor:
    spread = torch.cat([torch.empty(50).uniform_(-limit, limit) for limit in (1000, 120, 25, 1)])
    return torch.cat([spread, torch.tensor(TAILS), -torch.tensor(TAILS)]).to(dtype)


def softplus(z: Exact) -> Exact:
    return mpmath.log1p(mpmath.exp(z)) if z < 2000 else z


def sigma(z: Exact) -> Exact:
    return 1 / (1 + mpmath.exp(-z))


def exact_terms(z: Exact, y: Exact, p: Exact) -> dict[str, tuple[Exact, Exact]]:
    """The two terms of each result: loss, δ and ∂𝓛/∂y."""
    return {
        "loss": (p * y * softplus(-z), (1 - y) * softplus(z)),
        "delta": (-p * y * sigma(-z), (1 - y) * sigma(z)),
        "grad_target": (p * softplus(-z), -softplus(z)),
    }


def results(z: Tensor, y: Tensor, pos_weight: Tensor | None) -> dict[str, Tensor]:
    z, y = z.clone().requires_grad_(), y.clone().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=pos_weight)
    delta, grad_target = torch.autograd.grad(loss, (z, y), torch.ones_like(loss))
    return {"loss": loss.detach(), "delta": delta, "grad_target": grad_target}


def ulp(value: Exact, dtype: torch.dtype) -> Exact:
    """The distance between numbers of `dtype` near `value`, denormals included."""
    info = torch.finfo(dtype)
    smallest = mpmath.mpf(info.tiny) * mpmath.mpf(info.eps)
    exponent = mpmath.floor(mpmath.log(abs(value), 2)) if value else mpmath.mpf(-2000)
    return max(smallest, mpmath.mpf(2) ** exponent * mpmath.mpf(info.eps))


def worst_error(dtype: torch.dtype, target: float, p: float | None) -> float:
    """Largest error of any result, in ulp of the larger of its terms, as a multiple of what is allowed."""
    z = logits(dtype)
    y = torch.full_like(z, target)
    pos_weight = None if p is None else torch.tensor(p, dtype=dtype)
    weight = mpmath.mpf(1 if pos_weight is None else float(pos_weight))
    ours = results(z, y, pos_weight)
    worst = 0.0
    for i, logit in enumerate(z.tolist()):
        for name, (a, b) in exact_terms(mpmath.mpf(logit), mpmath.mpf(float(y[0])), weight).items():
            truth = a + b
            scale = abs(truth) if name == "grad_target" and p is None else max(abs(a), abs(b))
            if scale > mpmath.mpf(torch.finfo(dtype).max):
                continue
            unit = ulp(scale, dtype)
            if scale < mpmath.mpf(torch.finfo(dtype).tiny):
                unit *= max(mpmath.mpf(1), weight)
            worst = max(worst, float(abs(mpmath.mpf(float(ours[name][i])) - truth) / unit))
    return worst


@pytest.mark.parametrize("p", [None, 3.7])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float64, 4), (torch.float32, 4), (torch.bfloat16, 1.01), (torch.float16, 1.01)]
)
def test_results_are_within_a_few_ulp_of_exact(
    dtype: torch.dtype, allowed: float, target: float, p: float | None
) -> None:
    assert worst_error(dtype, target, p) <= allowed


@pytest.mark.parametrize(
    "inexact",
    [
        lambda z: torch.nn.functional.softplus(z),
        lambda z: torch.log(1 + torch.exp(-z.abs())) + z.clamp_min(0),
        lambda z: -torch.log(torch.sigmoid(-z)),
    ],
)
def test_textbook_formulas_would_fail(inexact: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted errors: the bound rejects the formulas that are common elsewhere."""
    monkeypatch.setattr("torchnn.ops.loss.softplus_pair", lambda z: (inexact(z), inexact(-z)))
    assert worst_error(torch.float64, 0.0, None) > 100


def test_one_minus_sigmoid_would_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchnn.ops.loss.sigmoid_pair", lambda z: (torch.sigmoid(z), 1 - torch.sigmoid(z)))
    assert worst_error(torch.float32, 1.0, None) > 100


@pytest.mark.parametrize("order", [1, 2, 3])
def test_every_order_of_derivative_is_right_at_zero(order: int) -> None:
    """σ(0) = ½ − y, σ' = ¼, σ'' = 0: autograd of |z| would give 0 for the first one."""
    z = torch.zeros(1, dtype=torch.double, requires_grad=True)
    value = F.binary_cross_entropy_with_logits(z, torch.zeros_like(z))
    for _ in range(order):
        (value,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    assert value.item() == pytest.approx({1: 0.5, 2: 0.25, 3: 0.0}[order], abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saturated_network_still_learns_where_autograd_stops(dtype: torch.dtype) -> None:
    """z = 20, y = 0: the true gradient is 1; a sigmoid and a separate BCELoss give 0."""
    z = torch.full((1,), 20.0, dtype=dtype, requires_grad=True)
    y = torch.zeros_like(z)
    (apart,) = torch.autograd.grad(torch.nn.BCELoss()(torch.sigmoid(z), y), z)
    weight = torch.ones(1, 1, dtype=dtype)
    loss, output = F.mlp_loss(z, y, [weight], None)
    (cancelled,) = torch.autograd.grad(loss, z)
    assert (apart.item(), cancelled.item(), loss.item(), output.item()) == (0, 1, 20, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_probabilities_at_the_clamps_equal_torch(dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1e-13, 1e-7, 0.3, 1 - 1e-7, 1], dtype=dtype)
    for target in (0.0, 0.4, 1.0):
        both = []
        for loss in (F.binary_cross_entropy, torch.nn.functional.binary_cross_entropy):
            inputs = a.clone().requires_grad_(), torch.full_like(a, target).requires_grad_()
            value = loss(*inputs, reduction="none")
            both.append((value.detach(), *torch.autograd.grad(value.sum(), inputs)))
        for ours, theirs in zip(*both, strict=True):
            torch.testing.assert_close(ours, theirs)


def row_with_torch(z: float) -> str:
    """A row of the table of README.md: loss and gradient at y = 0, in float32 except for the truth."""
    cells = []
    for dtype, loss in (
        (torch.float64, F.binary_cross_entropy_with_logits),
        (torch.float32, lambda logit, y: torch.nn.functional.binary_cross_entropy(torch.sigmoid(logit), y)),
        (torch.float32, F.binary_cross_entropy_with_logits),
    ):
        logit = torch.tensor([z], dtype=dtype, requires_grad=True)
        value = loss(logit, torch.zeros_like(logit))
        cells.append((value.item(), torch.autograd.grad(value, logit)[0].item()))
    losses, slopes = zip(*cells, strict=True)
    return " | ".join(f"{cell:.6f}" for cell in (*losses, *slopes))


if __name__ == "__main__":  # the figures of README.md
    torch.manual_seed(0)
    print("z: loss: truth | torch | torchnn | gradient: truth | torch | torchnn")
    for z in (10.0, 20.0, 50.0):
        print(f"{z:.0f}: {row_with_torch(z)}")
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        worst = [f"{worst_error(dtype, target, p):.2f}" for p in (None, 3.7) for target in (0.0, 1.0, 0.3)]
        print(f"{dtype}: p = 1: {', '.join(worst[:3])}; p = 3.7: {', '.join(worst[3:])}  (y = 0, 1, 0.3)")
