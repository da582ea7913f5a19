"""Which rows a stream loader serves to each process, in which order, and from where a resumed epoch continues."""

import tempfile
import weakref
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.streaming.helpers import mixed, module, numbered, rows_of, write
from torchnn.data import stream_loader
from torchnn.data.stream_loader import StreamLoader
from torchnn.tables.errors import TableError
from torchnn.tables.parquet import MOST_OPEN_GROUPS, ParquetFiles, Piece

GROUPS = st.lists(st.integers(0, 70), min_size=1, max_size=6).filter(sum)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loaders(stream: Any, num_ranks: int, seed: int | None = 7, **options: Any) -> list[StreamLoader]:
    options = {"batch_size": 8, "shuffle_rows": 24, **options}
    return [
        StreamLoader(stream, "all", shuffle_seed=seed, rank=r, num_ranks=num_ranks, **options) for r in range(num_ranks)
    ]


@quick
@given(GROUPS, st.integers(1, 90), st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
def test_ranks_together_serve_each_step_of_one_process(
    groups: list[int], shuffle_rows: int, batch_size: int, num_ranks: int, epoch: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stream = numbered(Path(folder), groups)
        options = {"batch_size": batch_size, "shuffle_rows": shuffle_rows}
        (one,), many = loaders(stream, 1, **options), loaders(stream, num_ranks, **options)
        found = []
        for loader in (one, *many):
            loader.set_epoch(epoch)
            batches = list(loader)
            assert len(batches) == len(loader)
            rows_of(batches)
            found.append([batch.row.tolist() for batch in batches])
    assert all(len(rows) == batch_size for rows in found[0][:-1])
    for rows, *parts in zip(*found, strict=True):
        assert sorted(row for part in parts for row in part) == sorted(rows)
    for buffer in range(0, len(one), one.buffer_rows // batch_size):
        read = [sum(map(len, steps[buffer : buffer + one.buffer_rows // batch_size])) for steps in found[1:]]
        assert max(read) - min(read) <= 1
    assert sorted(row for rows in found[0] for row in rows) == list(range(sum(groups)))


@quick
@given(GROUPS, st.integers(1, 40), st.integers(1, 4))
def test_in_order_every_row_is_served_once_over_all_ranks(groups: list[int], batch_size: int, num_ranks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = loaders(numbered(Path(folder), groups), num_ranks, None, batch_size=batch_size)
        assert [row for loader in found for row in rows_of(loader)] == list(range(sum(groups)))
        assert {len(list(loader)) for loader in found} == {len(loader) for loader in found}
        assert len({len(loader) for loader in found}) == 1


def test_the_order_depends_on_the_seed_and_the_epoch_only(tmp_path: Path) -> None:
    stream = numbered(tmp_path, [40, 0, 100, 3])
    orders = []
    for seed, epoch in ((7, 0), (7, 0), (7, 1), (8, 0)):
        loader = loaders(stream, 1, seed)[0]
        loader.set_epoch(epoch)
        orders.append(rows_of(loader))
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders[1:]}) == 3


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2])
def test_resuming_at_every_step_equals_an_uninterrupted_epoch(tmp_path: Path, before: int, after: int) -> None:
    sizes = [30, 7, 0, 13, 28]
    stream = numbered(tmp_path, sizes)
    first = loaders(stream, before)[-1]
    for whole, fresh in zip(loaders(stream, after), loaders(stream, after), strict=True):
        whole.set_epoch(3)
        expected = [batch.row.tolist() for batch in whole]
        for step in range(len(expected) + 1):
            first.set_epoch(0)
            first.set_epoch(3)
            assert len(list(islice(iter(first), step))) == step
            state = first.state_dict()
            assert state["rows"] == min(step * 8, sum(sizes))
            fresh.load_state_dict(state)
            fresh.set_epoch(3)
            assert [b.row.tolist() for b in fresh] == expected[step:]
            assert [b.row.tolist() for b in fresh] == expected  # the next iteration is complete


def test_resuming_reads_nothing_before_the_buffer_of_the_next_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, seen = numbered(tmp_path, [16] * 20), []
    plain = ParquetFiles.read

    def watched(self: ParquetFiles, pieces: list[Piece], columns: list[str]) -> Any:
        seen.append(len(pieces))
        return plain(self, pieces, columns)

    monkeypatch.setattr(ParquetFiles, "read", watched)
    loader = loaders(stream, 1, shuffle_rows=32)[0]
    loader.load_state_dict({**loader.state_dict(), "rows": 200})  # in the buffer of the rows 192 to 223
    assert len(rows_of(loader)) == 120
    assert seen == [8]


@pytest.mark.parametrize("other", [{"seed": 8}, {"batch_size": 4}, {"shuffle_rows": 48}])
def test_a_state_with_another_order_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    stream = numbered(tmp_path, [64])
    state = loaders(stream, **{"num_ranks": 1, **other})[0].state_dict()
    with pytest.raises(ValueError, match="it was written within an epoch"):
        loaders(stream, 1)[0].load_state_dict(state)


@pytest.mark.parametrize("seed", [None, 7])
def test_a_rank_reads_its_own_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None) -> None:
    seen: list[int] = []
    found = loaders(numbered(tmp_path, [16] * 20), 4, seed, shuffle_rows=128)
    plain = ParquetFiles.read

    def watched(self: ParquetFiles, pieces: list[Piece], columns: list[str]) -> Any:
        seen.extend(piece.row for piece in pieces)
        return plain(self, pieces, columns)

    monkeypatch.setattr(ParquetFiles, "read", watched)
    for loader in found:
        rows_of(loader)
    assert sorted(seen) == list(range(0, 320, 16))


def test_a_rank_closes_row_groups_that_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    plain = ParquetFiles._read_group

    def watched(self: ParquetFiles, *args: Any) -> Any:
        group = plain(self, *args)
        opened.append(weakref.ref(group))
        return group

    monkeypatch.setattr(ParquetFiles, "_read_group", watched)
    monkeypatch.setattr(stream_loader, "has_spare_core", lambda: False)
    for loader in loaders(numbered(tmp_path, [64] * 20), 3, shuffle_rows=24):
        opened.clear()
        for _ in loader:
            assert sum(group() is not None for group in opened) <= MOST_OPEN_GROUPS
        assert len(opened) > MOST_OPEN_GROUPS


def test_the_first_buffer_of_a_sorted_table_has_rows_of_several_groups(tmp_path: Path) -> None:
    loader = loaders(numbered(tmp_path, [160] * 8), 1, shuffle_rows=160)[0]
    first_buffer = rows_of(loader)[:160]
    assert len({row // 160 for row in first_buffer}) > 3
    pieces = loader.stream.files
    order = pieces.shuffled_order(np.ones(80, dtype=bool), np.random.default_rng(0)).tolist()
    assert sorted(order) == list(range(80))
    for group in range(8):
        mine = [number for number in order if number // 10 == group]
        assert mine == sorted(mine)


def test_reading_ahead_changes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, orders = loaders(numbered(tmp_path, [50, 7, 0, 33, 48]), 1)[0], []
    for ahead in (True, False):
        monkeypatch.setattr(stream_loader, "has_spare_core", lambda ahead=ahead: ahead)
        orders.append(rows_of(loader))
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("ahead", "most"), [(True, 2), (False, 1)])
def test_no_more_buffers_are_read_than_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool, most: int
) -> None:
    monkeypatch.setattr(stream_loader, "has_spare_core", lambda: ahead)
    loader, finished = loaders(numbered(tmp_path, [16] * 20), 1, shuffle_rows=32)[0], []
    plain = loader._read_buffers

    def counted(number: int) -> Any:
        for rows in plain(number):
            finished.append(len(rows.row))
            yield rows

    monkeypatch.setattr(loader, "_read_buffers", counted)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
        assert len(finished) <= most
    next(batches)
    assert most <= len(finished) <= most + 1


@pytest.mark.parametrize("ahead", [True, False])
def test_a_file_that_is_replaced_during_an_epoch_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr(stream_loader, "has_spare_core", lambda: ahead)
    loader = loaders(numbered(tmp_path, [16] * 4), 1, shuffle_rows=16)[0]
    batches = iter(loader)
    next(batches)
    write(tmp_path / "n.parquet", mixed(50))
    with pytest.raises(TableError, match=r"n\.parquet changed while it was in use"):
        list(batches)


def test_batches_have_their_full_size_although_training_rows_are_scattered(tmp_path: Path) -> None:
    data = module(write(tmp_path / "t.parquet", mixed(400), 64), batch_size=10, shuffle_rows=30)
    batches = list(data.train_dataloader())
    assert [len(b.row) for b in batches[:-1]] == [10] * (len(batches) - 1)
    parts = [
        torch.cat([b.row for b in loader])
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(400))
    assert [len(part) for part in parts] == [data.source.num_rows[part] for part in ("train", "val", "test")]
    assert all(torch.equal(part, part.sort().values) for part in parts[1:])
