"""The split, the batches and the standardisation."""

from typing import Any

import pytest
import torch
from sklearn.preprocessing import StandardScaler

from tests.training.helpers import table
from torchnn.tables.split import split_by_class
from torchnn.training import TabularDataModule
from torchnn.training.batches import BatchLoader
from torchnn.training.preprocess import Preprocess


def test_the_split_is_stratified_disjoint_and_repeatable() -> None:
    data = TabularDataModule()
    parts = data.rows.values()
    assert torch.equal(torch.cat(list(parts)).sort().values, torch.arange(569))
    for part in parts:
        assert data.table.target[part].mean().item() == pytest.approx(0.627, abs=0.01)
    again, other = TabularDataModule(), TabularDataModule(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(parts, again.rows.values(), strict=True))
    assert not torch.equal(data.rows["test"], other.rows["test"])


def test_the_fractions_are_those_asked_for() -> None:
    rows = split_by_class(torch.arange(1000) % 2, val_fraction=0.2, test_fraction=0.1, seed=0)
    assert {name: len(part) for name, part in rows.items()} == {"train": 700, "val": 200, "test": 100}


def test_standardisation_equals_scikit_learns_and_survives_a_constant_column() -> None:
    features = torch.randn(50, 3) * torch.tensor([1.0, 1e4, 0.0]) + torch.tensor([0.0, 1e6, 5.0])
    standardise = Preprocess(3)
    standardise.fit(features)
    expected = torch.from_numpy(StandardScaler().fit_transform(features.double().numpy())).float()
    torch.testing.assert_close(standardise(features), expected, rtol=1e-4, atol=1e-4)
    assert not standardise(features)[:, 2].any()


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_ranks_in_order_see_every_row_once(num_ranks: int) -> None:
    rows = torch.arange(10, 21)
    loaders = [BatchLoader(table(30), rows, 4, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert torch.equal(torch.cat([b.row for loader in loaders for b in loader]).sort().values, rows)
    assert [len(loader) for loader in loaders] == [len(list(loader)) for loader in loaders]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_shuffling_differs_by_epoch_and_ranks_stay_in_step(num_ranks: int) -> None:
    rows = torch.arange(10, 21)
    loaders = [BatchLoader(table(30), rows, 4, 7, rank, num_ranks) for rank in range(num_ranks)]
    epochs = []
    for epoch in range(3):
        for loader in loaders:
            loader.set_epoch(epoch)
        seen = [torch.cat([b.row for b in loader]) for loader in loaders]
        assert len({len(list(loader)) for loader in loaders} | {len(loader) for loader in loaders}) == 1
        assert len({len(part) for part in seen}) == 1
        together = torch.cat(seen)
        assert len(together.unique()) == len(together) == 11 - 11 % num_ranks
        epochs.append(together.tolist())
    assert len({tuple(order) for order in epochs}) == 3
    loaders[0].set_epoch(2)
    assert torch.cat([b.row for b in loaders[0]]).tolist() == epochs[2][: len(epochs[2]) // num_ranks]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("steps", range(1, 4))
def test_a_loader_goes_on_after_the_rows_that_were_served(num_ranks: int, seed: int | None, steps: int) -> None:
    def loaders() -> list[BatchLoader]:
        return [BatchLoader(table(30), torch.arange(30), 3, seed, rank, num_ranks) for rank in range(num_ranks)]

    before, after = loaders(), loaders()
    for loader in before:
        loader.set_epoch(2)
    whole = [[batch.row.tolist() for batch in loader] for loader in before]
    for first in map(iter, before):
        for _ in range(steps):
            next(first)
    states = [loader.state_dict() for loader in before]
    expected = {"epoch": 2, "rows": 3 * num_ranks * steps, "seed": seed, "rows_per_step": 3 * num_ranks}
    assert states == [expected] * num_ranks
    for loader, rows in zip(after, whole, strict=True):
        loader.load_state_dict(expected)
        loader.set_epoch(2)
        assert len(loader) == len(rows), "the length is that of a whole epoch"
        assert [batch.row.tolist() for batch in loader] == rows[steps:]
        assert [batch.row.tolist() for batch in loader] == rows, "only one iteration is shortened"


def test_a_position_in_another_order_or_between_two_steps_is_refused() -> None:
    state = BatchLoader(table(30), torch.arange(30), 4, 7).state_dict()
    for loader, message in (
        (BatchLoader(table(30), torch.arange(30), 4, 8), "shuffled by seed 7, these are by 8"),
        (BatchLoader(table(30), torch.arange(30), 4, 7, num_ranks=2), "steps of 4 rows .* these have 8"),
    ):
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict(state)


def test_a_batch_holds_the_rows_it_names() -> None:
    for batch in BatchLoader(table(30), torch.arange(30), 8, shuffle_seed=0):
        assert torch.equal(batch.features[:, 0], 2.0 * batch.row)
        assert torch.equal(batch.target, (batch.row % 3 == 0).float())


def test_more_ranks_than_rows_leave_the_others_without_a_batch() -> None:
    loaders = [BatchLoader(table(3), torch.arange(2), 4, rank=rank, num_ranks=3) for rank in range(3)]
    assert [len(list(loader)) for loader in loaders] == [len(loader) for loader in loaders] == [1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "iris"}, "dataset is 'iris'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing is left"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_data_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularDataModule(**arguments)
