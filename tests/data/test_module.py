"""The split, the batches and the standardisation."""

from typing import Any

import pytest
import torch
from sklearn.preprocessing import StandardScaler

from tests.runs.helpers import table
from torchnn.data.batches import BatchLoader
from torchnn.model.preprocess import Preprocess
from torchnn.tables.split import split_by_class
from torchnn.training import TabularDataModule


def test_the_split_is_stratified_disjoint_and_repeatable() -> None:
    data = TabularDataModule()
    parts = data.rows.values()
    assert torch.equal(torch.cat(list(parts)).sort().values, torch.arange(569))
    for part in parts:
        assert data.table.target[part].mean().item() == pytest.approx(0.627, abs=0.01)
    again, other = TabularDataModule(), TabularDataModule(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(parts, again.rows.values(), strict=True))
    assert not torch.equal(data.rows["test"], other.rows["test"])


def test_the_parts_have_the_requested_fractions() -> None:
    rows = split_by_class(torch.arange(1000) % 2, val_fraction=0.2, test_fraction=0.1, seed=0)
    assert {name: len(part) for name, part in rows.items()} == {"train": 700, "val": 200, "test": 100}


def test_standardisation_equals_scikit_learn_and_accepts_a_constant_column() -> None:
    features = torch.randn(50, 3) * torch.tensor([1.0, 1e4, 0.0]) + torch.tensor([0.0, 1e6, 5.0])
    standardise = Preprocess(3)
    standardise.fit(features)
    expected = torch.from_numpy(StandardScaler().fit_transform(features.double().numpy())).float()
    torch.testing.assert_close(standardise(features), expected, rtol=1e-4, atol=1e-4)
    assert not standardise(features)[:, 2].any()


def ranks(num_ranks: int, num_rows: int = 30, batch_size: int = 4, seed: int | None = 7) -> list[BatchLoader]:
    rows = torch.arange(10, 10 + num_rows)
    return [BatchLoader(table(99), rows, batch_size, seed, rank, num_ranks) for rank in range(num_ranks)]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize(("num_rows", "batch_size"), [(11, 4), (12, 4), (13, 4), (2, 3), (30, 30)])
def test_ranks_together_serve_each_step_of_one_process(
    num_ranks: int, seed: int | None, num_rows: int, batch_size: int
) -> None:
    (one,), many = ranks(1, num_rows, batch_size, seed), ranks(num_ranks, num_rows, batch_size, seed)
    for epoch in range(3):
        for loader in (one, *many):
            loader.set_epoch(epoch)
        steps = [batch.row.tolist() for batch in one]
        shares = [[batch.row.tolist() for batch in loader] for loader in many]
        assert {len(steps)} == set(map(len, shares)) == {len(loader) for loader in (one, *many)}
        for step, (rows, *parts) in enumerate(zip(steps, *shares, strict=True)):
            assert sorted(row for part in parts for row in part) == sorted(rows)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
            assert all(loader.rows_of_steps(step, step + 1) == len(rows) for loader in many)
        assert sorted(row for rows in steps for row in rows) == list(range(10, 10 + num_rows))


def test_shuffling_differs_by_epoch_and_seed() -> None:
    orders = []
    for seed, epoch in ((7, 0), (7, 1), (7, 2), (8, 0), (7, 0)):
        (loader,) = ranks(1, seed=seed)
        loader.set_epoch(epoch)
        orders.append(torch.cat([batch.row for batch in loader]).tolist())
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == orders[-1]


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("steps", range(1, 5))
def test_any_number_of_ranks_resumes_after_the_rows_that_were_served(before: int, after: int, steps: int) -> None:
    first, then = ranks(before, 25, 7), ranks(after, 25, 7)
    for loader in (*first, *then):
        loader.set_epoch(2)
    whole = [[batch.row.tolist() for batch in loader] for loader in then]
    for batches in map(iter, first):
        for _ in range(steps):
            next(batches)
    expected = {"epoch": 2, "rows": min(7 * steps, 25), "seed": 7, "rows_per_step": 7}
    assert [loader.state_dict() for loader in first] == [expected] * before
    for loader, rows in zip(ranks(after, 25, 7), whole, strict=True):
        loader.load_state_dict(expected)
        loader.set_epoch(2)
        assert len(loader) == len(rows), "the length is that of a whole epoch"
        assert [batch.row.tolist() for batch in loader] == rows[steps:]
        assert [batch.row.tolist() for batch in loader] == rows, "only one iteration is shortened"


def test_a_state_with_another_seed_or_batch_size_is_refused() -> None:
    state = BatchLoader(table(30), torch.arange(30), 4, 7).state_dict()
    for loader, message in (
        (BatchLoader(table(30), torch.arange(30), 4, 8), "with seed 7, but this run has seed 8"),
        (BatchLoader(table(30), torch.arange(30), 8, 7), "with rows_per_step 4, but this run has rows_per_step 8"),
    ):
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict(state)


def test_a_batch_holds_the_rows_that_it_lists() -> None:
    for batch in BatchLoader(table(30), torch.arange(30), 8, shuffle_seed=0):
        assert torch.equal(batch.features[:, 0], 2.0 * batch.row)
        assert torch.equal(batch.target, (batch.row % 3 == 0).float())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "iris"}, "dataset is 'iris'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leaves no rows for training"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularDataModule(**arguments)
