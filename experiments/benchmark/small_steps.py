"""Where the time of a small step is spent: torchnn from its bare operations to its module, and eager."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

import torchnn
from torchnn.functional import _whole_network as whole
from torchnn.functional._arguments import plain_apply

from .contenders import Contender, forget, gradients_of
from .problems import Problem

BARE, FUNCTION, LOSS = "bare Function", "torchnn's Function", "mlp_loss"

linear: Any = torch.nn.functional.linear
softplus: Any = torch.nn.functional.softplus


class BareFunction(Function):
    """The operations of torchnn's step without any checks: the minimum cost of a backward in Python.

    Only for this measurement: it does not check its arguments, does not save tensors through autograd, and has no
    second order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
        *hidden, (weight, bias) = zip(parameters[::2], parameters[1::2], strict=True)
        a, scale = [x], 1 / len(y)
        for w, b in hidden:
            a.append(linear(a[-1], w, b).sigmoid_())
        z = linear(a[-1], weight, bias)
        minus_z = -z
        ctx.delta = torch.sigmoid(z).mul_(scale).lerp_(torch.sigmoid(minus_z).mul_(-scale), y)
        ctx.activations, ctx.weights = a, parameters[::2]
        loss: Tensor = softplus(z, 1.0, 40.0, out=z).lerp_(softplus(minus_z, 1.0, 40.0, out=minus_z), y)
        return loss.sum().mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        delta, grads = ctx.delta * grad_output, []
        for layer in range(len(ctx.weights) - 1, -1, -1):
            a = ctx.activations[layer]
            grads += [delta.sum(0), torch.mm(delta.t(), a)]
            if layer:
                below = torch.mm(delta, ctx.weights[layer])
                delta = torch.ops.aten.sigmoid_backward.grad_input(below, a, grad_input=below)
        return None, None, *reversed(grads)


def bare(problem: Problem) -> Contender:
    parameters, apply = [nn.Parameter(p.clone()) for p in problem.parameters], plain_apply(BareFunction)

    def step() -> None:
        forget(parameters)
        apply(problem.x, problem.y, *parameters).backward()

    return Contender(BARE, step, gradients_of(parameters))


def function(problem: Problem) -> Contender:
    """torchnn's Function with a plan that was prepared before."""
    parameters = [nn.Parameter(p.clone()) for p in problem.parameters]
    given = problem.x, problem.y, None, None, *parameters[::2], *parameters[1::2]
    activations = ("sigmoid",) * (len(parameters) // 2)
    question = activations, "binary_cross_entropy", "mean", None, torch.is_grad_enabled(), whole.may_choose_products()
    plan = whole.plan_of(whole.tensor_infos(given), *question, is_autocast=False)
    assert plan is not None

    def step() -> None:
        forget(parameters)
        whole.apply_network(plan, *given)[0].backward()

    return Contender(FUNCTION, step, gradients_of(parameters))


def loss(problem: Problem) -> Contender:
    parameters = [nn.Parameter(p.clone()) for p in problem.parameters]
    network = parameters[::2], parameters[1::2]

    def step() -> None:
        forget(parameters)
        torchnn.functional.mlp_loss(problem.x, problem.y, *network)[0].backward()

    return Contender(LOSS, step, gradients_of(parameters))


CONTENDERS_OF_A_SMALL_STEP = (bare, function, loss)
