"""The arithmetic of a step of many processes, in one process: each rank's batch through one model, then the mean."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from torchnn.data.batches import BatchLoader
from torchnn.data.shares import Share, data_rank, share_of
from torchnn.model import classifier
from torchnn.model.metrics import MeanLoss, evaluation_metrics
from torchnn.runs.resume import sum_of_process
from torchnn.tables.table import Table
from torchnn.training import BinaryClassifier, TabularDataModule

ROWS = 45


class Ranks:
    """Processes that do their steps in turn.

    Args:
        loaders: one for each process.
        every: number of batches that are accumulated for a step.
        rows_by_message: rows of all processes in the batch, exchanged in a message if the loaders do not know them.
    """

    def __init__(self, loaders: Sequence[Any], every: int = 1, rows_by_message: int = 0) -> None:
        self.loaders, self.every = loaders, every
        self.strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: torch.tensor(rows_by_message))

    def trainer(self, rank: int) -> Any:
        return SimpleNamespace(
            accumulate_grad_batches=self.every,
            distributed_sampler_kwargs={"rank": rank, "num_replicas": len(self.loaders)},
            train_dataloader=self.loaders[rank],
            num_training_batches=len(self.loaders[rank]),
            world_size=len(self.loaders),
            strategy=self.strategy,
        )

    def steps(self, model: BinaryClassifier) -> tuple[list[list[Tensor]], float]:
        """The gradient of each step as DDP and Lightning combine it, and the loss that they log."""
        logged: list[tuple[float, int]] = []
        model.log = lambda name, value, **options: logged.append((float(value.detach()), options["batch_size"]))  # type: ignore[method-assign]
        batches = [list(loader) for loader in self.loaders]
        assert len({len(own) for own in batches}) == 1
        gradients = []
        for first in range(0, len(batches[0]), self.every):
            model.zero_grad()
            for rank, own in enumerate(batches):
                model._trainer = self.trainer(rank)
                for batch_idx, batch in enumerate(own[first : first + self.every], first):
                    loss = model.training_step(batch, batch_idx) / self.every
                    (loss / len(batches)).backward()
            gradients.append([p.grad.clone() for p in model.network.parameters() if p.grad is not None])
        return gradients, sum(value * rows for value, rows in logged) / sum(rows for _, rows in logged)


@pytest.fixture
def table() -> Table:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)
    target, weight = torch.rand(2, ROWS, generator=generator, dtype=torch.float64)
    return Table(
        features=features, target=target.round(), columns=("a", "b", "c"), classes=("no", "yes"), weight=weight
    )


def model_of(**options: Any) -> BinaryClassifier:
    torch.manual_seed(0)
    return BinaryClassifier(3, hidden_sizes=[4], scaling="none", **options).double()


def loaders(table: Table, num_ranks: int, batch_size: int) -> list[BatchLoader]:
    return [BatchLoader(table, torch.arange(ROWS), batch_size, 7, rank, num_ranks) for rank in range(num_ranks)]


def expected(model: BinaryClassifier, table: Table, batch_size: int) -> tuple[list[list[Tensor]], float]:
    """Gradients of the mean over the rows of each step, by autograd and torch's own losses."""
    (loader,) = loaders(table, 1, batch_size)
    gradients, total = [], 0.0
    for batch in loader:
        x = batch.features
        for layer in model.network.layers[:-1]:
            x = layer(x)
        z = model.network.layers[-1](x, pre_activation=True).squeeze(1)
        if model.options.loss == "mse":
            elements = mse_loss(z.sigmoid(), batch.target, reduction="none")
        else:
            elements = binary_cross_entropy_with_logits(z, batch.target, reduction="none", pos_weight=model.pos_weight)
        assert batch.weight is not None
        summed = (elements * batch.weight).sum()
        gradients.append(list(torch.autograd.grad(summed / len(batch.row), list(model.network.parameters()))))
        total += float(summed.detach())
    return gradients, total / ROWS


def distance(a: tuple[list[list[Tensor]], float], b: tuple[list[list[Tensor]], float]) -> float:
    pairs = [pair for steps in zip(a[0], b[0], strict=True) for pair in zip(*steps, strict=True)]
    return max(*[float((p - q).abs().max()) for p, q in pairs], abs(a[1] - b[1]))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [8, 11, 44, 45])  # of 45 rows the last step has 5, 1, 1 and all
@pytest.mark.parametrize("options", [{"pos_weight": 3.0}, {"loss": "mse"}], ids=str)
def test_a_step_of_many_ranks_is_the_step_of_all_their_rows(
    num_ranks: int, batch_size: int, options: dict[str, Any], table: Table
) -> None:
    model = model_of(**options)
    found = Ranks(loaders(table, num_ranks, batch_size)).steps(model)
    assert distance(found, expected(model, table, batch_size)) < 1e-14


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("every", [2, 3])
def test_accumulated_batches_are_one_step_of_all_their_rows(num_ranks: int, every: int, table: Table) -> None:
    model = model_of()
    found = Ranks(loaders(table, num_ranks, 8), every).steps(model)
    assert distance(found, expected(model, table, 8 * every)) < 1e-14


def equal_weight_of_ranks(trainer: Any, batch_idx: int, num_rows: int, device: torch.device) -> Share:
    return Share(num_rows)


def equal_weight_of_batches(trainer: Any, batch_idx: int, num_rows: int, device: torch.device) -> Share:
    share = share_of(trainer, batch_idx, num_rows, device)
    return share._replace(of_step=share.of_batch)


@pytest.mark.parametrize(("recipe", "every"), [(equal_weight_of_ranks, 1), (equal_weight_of_batches, 2)])
def test_a_mean_of_means_is_a_different_step(
    recipe: Callable[..., Share], every: int, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of()
    monkeypatch.setattr(classifier, "share_of", recipe)
    found = Ranks(loaders(table, 2, 8), every).steps(model)
    assert distance(found, expected(model, table, 8 * every)) > 1e-4


def test_ranks_exchange_their_row_counts_if_the_loader_does_not_know_them(table: Table) -> None:
    rows = [torch.arange(30), torch.arange(30, ROWS)]
    parts = [BatchLoader(table, part, ROWS) for part in rows]
    own: list[Any] = [list(loader) for loader in parts]  # a list has no `rows_of_steps`
    model = model_of()
    found = Ranks(own, rows_by_message=ROWS).steps(model)
    assert distance(found, expected(model, table, ROWS)) < 1e-14


def test_one_process_has_a_share_of_one() -> None:
    assert data_rank(None) == (0, 1)
    alone = SimpleNamespace(distributed_sampler_kwargs=None, accumulate_grad_batches=1)
    assert share_of(None, 5, 8, torch.device("cpu")) == share_of(alone, 5, 8, torch.device("cpu")) == Share(8, 1.0, 1.0)


def test_the_share_of_equal_ranks_is_one() -> None:
    """Then nothing is multiplied."""
    knows = SimpleNamespace(rows_of_steps=lambda first, stop: 16 * (stop - first))
    trainer = SimpleNamespace(
        distributed_sampler_kwargs={"rank": 1, "num_replicas": 4},
        accumulate_grad_batches=3,
        train_dataloader=knows,
        num_training_batches=float("inf"),
    )
    assert share_of(trainer, 5, 4, torch.device("cpu")) == Share(16, 1.0, 1.0)


@pytest.mark.parametrize("options", [{}, {"loss": "mse"}], ids=str)
def test_a_rank_without_rows_takes_part_with_gradients_of_zero(options: dict[str, Any], table: Table) -> None:
    model = model_of(**options)
    (_, rank) = Ranks(loaders(table, 2, 44)).loaders
    *_, nothing = rank
    assert len(nothing.row) == 0
    model._trainer = Ranks(loaders(table, 2, 44)).trainer(1)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    model.training_step(nothing, 1).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_sum_of_an_interrupted_run_counts_once_with_any_number_of_processes() -> None:
    begun = torch.tensor([3.0, 5.0])
    for num_ranks in (1, 2, 3, 4):
        total = sum(float(sum_of_process(begun, rank, num_ranks, is_mean=False)) for rank in range(num_ranks))
        assert total == 8
        mean = sum(float(sum_of_process(begun, rank, num_ranks, is_mean=True)) for rank in range(num_ranks))
        assert mean / num_ranks == pytest.approx(4)


def test_a_rank_without_held_out_rows_does_not_change_the_metrics() -> None:
    whole, with_empty = evaluation_metrics("val"), evaluation_metrics("val")
    probability, label = torch.tensor([[0.2], [0.7], [0.6]]), torch.tensor([[0], [1], [0]], dtype=torch.int32)
    whole.update(probability, label)
    for rows in (slice(0, 0), slice(0, 3)):
        with_empty.update(probability[rows], label[rows])
    assert whole.compute() == with_empty.compute()
    losses = MeanLoss()
    losses.update(torch.tensor(0.0), torch.ones(0, 1))
    losses.update(torch.tensor(2.0), torch.ones(3, 1))
    assert losses.compute() == 2


def test_a_batch_smaller_than_the_number_of_ranks_is_warned_about_once(capsys: pytest.CaptureFixture[str]) -> None:
    for batch_size, times in ((3, 1), (4, 0)):
        data = TabularDataModule(batch_size=batch_size)
        data.trainer = Ranks([[]] * 4).trainer(0)
        loaders = [data.train_dataloader() for _ in range(2)]
        assert capsys.readouterr().err.count("is shared by all 4 processes") == times
        assert len(loaders[0]) == -(-397 // batch_size)
