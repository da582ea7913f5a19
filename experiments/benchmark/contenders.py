"""The contenders: each computes the loss and gradients of one training step."""

import importlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import torchnn

from ..common.errors import UnavailableError
from .others import jax_step, own_products_step, products_step, scikit_learn_step
from .problems import Problem

EAGER, AGAIN, OURS = "eager", "eager again", "torchnn"
MICRO, COMPILE, SKLEARN, JAX, PRODUCTS, OWN_PRODUCTS = (
    "micro-batched eager",
    "torch.compile",
    "scikit-learn",
    "JAX",
    "torch's matrix products alone",
    "torchnn's matrix products alone",
)
MICRO_BATCHES = (256, 512, 1024, 2048, 4096)
TRIAL_ROWS = 8192
TRIAL_SECONDS = 0.2
TOLERANCE = 1e-4
TOLERANCE_OF_BFLOAT16 = 0.02  # with eight bits of precision, five layers have an error of 0.006

Gradients = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Contender:
    """One way to compute the gradients.

    Attributes:
        name: name in the tables.
        step: computes the loss and the gradients of all parameters once.
        gradients: returns the gradients of the last step, in the order of `Problem.parameters`; None if they cannot be
            compared.
    """

    name: str
    step: Callable[[], object]
    gradients: Gradients | None


class WrongGradientError(RuntimeError):
    """A contender does not compute what eager computes."""


def nothing() -> AbstractContextManager[object]:
    return nullcontext()


def bfloat16_autocast() -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def ours(problem: Problem, context: Callable[[], AbstractContextManager[object]] = nothing) -> Contender:
    network = torchnn.MLP(problem.point.sizes)
    parameters = with_parameters(network, problem.parameters)
    x, y = problem.x, problem.y

    def step() -> None:
        forget(parameters)
        with context():
            loss = network(x, y)
        loss.backward()

    return Contender(OURS, step, gradients_of(parameters))


def eager(
    problem: Problem, name: str = EAGER, context: Callable[[], AbstractContextManager[object]] = nothing
) -> Contender:
    model, criterion = sequential(problem.point.sizes), nn.BCELoss()
    parameters = with_parameters(model, problem.parameters)
    x, y = problem.x, problem.y

    def step() -> None:
        forget(parameters)
        with context():
            loss = criterion(model(x), y)
        loss.backward()

    return Contender(name, step, gradients_of(parameters))


def without_loss(problem: Problem, model: nn.Module, name: str) -> Contender:
    """The network without a loss, as in a larger model: from a gradient of the output to those of the parameters."""
    parameters, x = with_parameters(model, problem.parameters), problem.x
    incoming = problem.y - 0.5

    def step() -> None:
        forget(parameters)
        model(x).backward(incoming)

    return Contender(name, step, gradients_of(parameters))


def eager_again(problem: Problem) -> Contender:
    return eager(problem, AGAIN)


def micro_batched(problem: Problem) -> Contender:
    """Eager on slices of the batch, with the size that is fastest in a short trial."""
    batch = problem.point.batch
    if batch <= MICRO_BATCHES[0]:
        raise UnavailableError(f"the batch has no more than {MICRO_BATCHES[0]} rows")
    trial = min(batch, TRIAL_ROWS)
    seconds = {
        rows: fastest(micro_batched_step(problem, problem.x[:trial], problem.y[:trial], rows).step)
        for rows in MICRO_BATCHES
        if rows < batch
    }
    return micro_batched_step(problem, problem.x, problem.y, min(seconds, key=seconds.__getitem__))


def micro_batched_step(problem: Problem, x: Tensor, y: Tensor, rows: int) -> Contender:
    model, criterion = sequential(problem.point.sizes), nn.BCELoss()
    parameters = with_parameters(model, problem.parameters)
    total = len(x)

    def step() -> None:
        forget(parameters)
        for start in range(0, total, rows):
            x_part, y_part = x[start : start + rows], y[start : start + rows]
            (criterion(model(x_part), y_part) * (len(x_part) / total)).backward()

    return Contender(MICRO, step, gradients_of(parameters))


def compiled(problem: Problem) -> Contender:
    """Model and loss in one function, compiled for this batch size only; compilation is not timed."""
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        raise UnavailableError("there is no C++ compiler")
    model, criterion = sequential(problem.point.sizes), nn.BCELoss()
    parameters = with_parameters(model, problem.parameters)
    x, y = problem.x, problem.y

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = criterion(model(x), y)
        return loss

    def step() -> None:
        forget(parameters)
        compiled_loss(x, y).backward()

    try:
        torch.compiler.reset()  # otherwise the compilation of an earlier point would make these sizes dynamic
        compiled_loss = torch.compile(loss_of, dynamic=False)
        inductor: Any = importlib.import_module("torch._inductor.config")
        with inductor.patch(compile_threads=1):  # no other processes while contenders are timed
            step()
    except Exception as error:  # a compiler has too many ways to fail
        raise UnavailableError(f"it fails with {type(error).__name__}") from error
    return Contender(COMPILE, step, gradients_of(parameters))


def scikit_learn(problem: Problem) -> Contender:
    return Contender(SKLEARN, scikit_learn_step(problem), None)


def jax(problem: Problem) -> Contender:
    return Contender(JAX, *jax_step(problem))


def products(problem: Problem) -> Contender:
    return Contender(PRODUCTS, products_step(problem), None)


def own_products(problem: Problem) -> Contender:
    return Contender(OWN_PRODUCTS, own_products_step(problem), None)


def in_blocks(
    problem: Problem, rows: int, context: Callable[[], AbstractContextManager[object]] = nothing
) -> Contender:
    """torchnn with blocks of a given number of rows."""
    network = torchnn.MLP(problem.point.sizes)
    parameters = with_parameters(network, problem.parameters)
    weights, biases = parameters[::2], parameters[1::2]

    def step() -> None:
        forget(parameters)
        with context():
            loss, _ = torchnn.functional.mlp_loss(problem.x, problem.y, weights, biases, block_rows=rows)
        loss.backward()

    return Contender(f"blocks of {rows:,} rows", step, gradients_of(parameters))


CONTENDERS: dict[str, Callable[[Problem], Contender]] = {
    EAGER: eager,
    OURS: ours,
    AGAIN: eager_again,
    MICRO: micro_batched,
    COMPILE: compiled,
    SKLEARN: scikit_learn,
    JAX: jax,
    PRODUCTS: products,
    OWN_PRODUCTS: own_products,
}
FAST_POINTS_ONLY = frozenset({COMPILE, SKLEARN, JAX})


def sequential(sizes: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.Sigmoid())))


def with_parameters(model: nn.Module, values: Sequence[Tensor]) -> list[nn.Parameter]:
    """Copy `values` into the parameters of a model and return the parameters."""
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    return parameters


def forget(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def gradients_of(parameters: Sequence[nn.Parameter]) -> Gradients:
    return lambda: [parameter.grad for parameter in parameters if parameter.grad is not None]


def fastest(step: Callable[[], object]) -> float:
    """Seconds of the fastest of a few steps, after a warm-up step."""
    step()
    seconds: list[float] = []
    while not seconds or (len(seconds) < 10 and sum(seconds) < TRIAL_SECONDS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def check_gradients(contender: Contender, expected: Sequence[Tensor], tolerance: float = TOLERANCE) -> None:
    """Take a step, and raise WrongGradientError unless it gives the expected gradients, norm by norm."""
    contender.step()
    if contender.gradients is None:
        return
    given = contender.gradients()
    if [g.shape for g in given] != [e.shape for e in expected]:
        raise WrongGradientError(f"{contender.name}: the gradient of a parameter is missing or has another shape.")
    for position, error in enumerate(relative_errors(given, expected)):
        if not error < tolerance:
            raise WrongGradientError(
                f"{contender.name}: gradient {position} differs from eager's by {error:.1e} of its norm."
            )


def relative_errors(given: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    """The norm of each difference divided by the norm of the expected gradient, in float64."""
    return [float((g.double() - e.double()).norm() / e.double().norm()) for g, e in zip(given, expected, strict=True)]
