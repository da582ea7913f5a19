"""Error of every gradient in float32 against autograd in float64."""

from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from .contenders import EAGER, OURS, eager, ours, relative_errors, sequential, with_parameters
from .problems import DEEP, Point, Problem, make_problem

POINT = Point(DEEP, 65536)
SEEDS = range(5)


@dataclass(frozen=True)
class Accuracy:
    """Norm-wise relative errors of the gradient of a parameter, medians over the seeds."""

    parameter: str
    of_ours: float
    of_eager: float

    @property
    def ratio(self) -> float:
        """torchnn's error divided by eager's."""
        return self.of_ours / self.of_eager


def measure_accuracy(point: Point = POINT, seeds: range = SEEDS) -> list[Accuracy]:
    by_seed = [errors_of(make_problem(point, seed)) for seed in seeds]
    names = [f"{kind}[{layer}]" for layer in range(1, len(point.sizes)) for kind in "Wb"]
    return [
        Accuracy(name, *(median(errors[contender][i] for errors in by_seed) for contender in (OURS, EAGER)))
        for i, name in enumerate(names)
    ]


def errors_of(problem: Problem) -> dict[str, list[float]]:
    """The error of each gradient, by contender."""
    truth = gradients_in_float64(problem)
    errors = {}
    for contender in (ours(problem), eager(problem)):
        contender.step()
        assert contender.gradients is not None
        errors[contender.name] = relative_errors(contender.gradients(), truth)
    return errors


def gradients_in_float64(problem: Problem) -> list[Tensor]:
    model = sequential(problem.point.sizes).double()
    parameters = with_parameters(model, problem.parameters)
    loss = nn.functional.binary_cross_entropy(model(problem.x.double()), problem.y.double())
    return list(torch.autograd.grad(loss, parameters))
