"""Every row belongs to exactly one part, and rows of one time or group stay together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tables.helpers import good, lines, read, refusal, text, write
from torchnn.data.module import TabularDataModule

RANDOM = np.random.default_rng(0)
WHEN, GROUP, LABEL = RANDOM.integers(0, 40, 300), RANDOM.integers(0, 30, 300), (RANDOM.random(300) < 0.3).astype(int)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    def row(number: int) -> str:
        return f"2020-02-{WHEN[number] % 28 + 1:02},{WHEN[number]},g{GROUP[number]},{number % 9 + 0.5},{LABEL[number]}"

    return write(tmp_path / "t.csv", text(lines(row, "date,when,group,x,y", 300)))


def check_partition(data: TabularDataModule) -> dict[str, set[int]]:
    parts = {name: set(rows.tolist()) for name, rows in data.rows.items()}
    assert list(parts) == ["train", "val", "test"]
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(data.table)
    for rows in parts.values():
        assert {LABEL[row] for row in rows} == {0, 1}
    return parts


@pytest.mark.parametrize("column", ["when", "date"])
def test_a_split_by_time_holds_out_the_latest_rows_and_keeps_ties_together(path: Path, column: str) -> None:
    data = read(path, split="time", split_column=column)
    parts = check_partition(data)
    when = WHEN if column == "when" else WHEN % 28
    times = {name: {when[row] for row in rows} for name, rows in parts.items()}
    assert max(times["train"]) < min(times["val"]) <= max(times["val"]) < min(times["test"])
    assert len(parts["test"]) == pytest.approx(45, abs=12)
    assert column not in {slot.split()[0] for slot in data.table.columns}
    assert column in {
        slot.split()[0] for slot in read(path, split="time", split_column=column, keep=[column]).table.columns
    }


def test_no_group_is_in_two_parts(path: Path) -> None:
    data = read(path, split="group", split_column="group")
    groups = [{GROUP[row] for row in rows} for rows in check_partition(data).values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    assert "group" not in data.table.columns


def test_every_row_is_held_out_by_one_fold(path: Path) -> None:
    held_out: list[int] = []
    for fold in range(5):
        parts = check_partition(read(path, folds=5, fold=fold))
        held_out += parts["test"]
        for rows in parts.values():
            assert np.mean([LABEL[row] for row in rows]) == pytest.approx(LABEL.mean(), abs=0.02)
    assert sorted(held_out) == list(range(300))


def test_the_split_depends_on_the_seed(path: Path) -> None:
    for options in ({}, {"split": "group", "split_column": "group"}, {"folds": 3, "fold": 1}):
        first, again, other = (read(path, seed=seed, **options).rows["test"] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("given", [("val",), ("test",), ("val", "test")])
def test_separate_files_are_the_parts(given: tuple[str, ...], tmp_path: Path) -> None:
    own = write(tmp_path / "train.csv", text(lines(good, rows=80)))
    options: dict[str, Any] = {
        f"{name}_path": str(write(tmp_path / f"{name}.csv", text(lines(good, rows=20)))) for name in given
    }
    data = read(own, **options)
    first = 80
    for name in given:
        assert data.rows[name].tolist() == list(range(first, first + 20))
        first += 20
    others = torch.cat([rows for name, rows in data.rows.items() if name not in given])
    assert others.sort().values.tolist() == list(range(80))
    if len(given) == 2:
        assert len(data.rows["train"]) == 80
    one_class = text(lines(lambda row: f"{row},red,1"))
    write(tmp_path / f"{given[0]}.csv", one_class)
    assert refusal(own, **options) == (
        f"--data.{given[0]}_path has rows of one class only: use files with rows of both classes."
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "time"}, "split is time, but split_column is missing: set it to the column with the time of each"),
        ({"split_column": "x"}, "split_column is 'x', but split is random: set split to time or group."),
        (
            {"split": "time", "split_column": "when", "folds": 3},
            "folds cannot be used with split time, because later rows",
        ),
        (
            {"test_path": "a.csv", "folds": 3},
            "test_path cannot be used with folds, because the files define the split: leave one of them out.",
        ),
        ({"folds": 1}, "folds is 1: use 2 or more, or 0 for a single run."),
        ({"folds": 3, "fold": 3}, "fold is 3: folds are counted from 0, so it must be less than folds, which is 3."),
        ({"folds": 200}, "folds is 200, but one class has fewer rows than that: use fewer folds."),
        (
            {"folds": 40, "split": "group", "split_column": "group"},
            "folds is 40, but there are only 30 groups: use fewer",
        ),
        ({"folds": 3, "val_fraction": 0.001}, "val_fraction 0.001 and test_fraction 0.333333 of 300 rows leave a part"),
        (
            {"split": "time", "split_column": "y"},
            "--data.split_column and --data.target are both 'y': use different columns.",
        ),
    ],
)
def test_an_impossible_split_is_refused(options: dict[str, Any], sentence: str, path: Path) -> None:
    assert sentence in refusal(path, **options)


def test_a_row_without_a_time_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", text(lines(lambda row: f"{'' if row == 6 else row},{row % 5},{row % 2}", "when,x,y"))
    )
    sentence = refusal(path, split="time", split_column="when")
    assert sentence == f"{path}, row 6 (line 8), column 'when' is missing: a split by time needs a time in every row."
