"""Kills of `torchnn fit` on a stream and on a text with categories, times and missing values, also within epochs."""

import random
from pathlib import Path

import pyarrow.csv as pacsv
import pytest
import torch

from tests.cli.test_kill import assert_same_end, runs_to_the_end
from tests.streaming.helpers import mixed, write
from torchnn.runs.resume import SECTION

KILLS = 5
TABLES = {
    "stream": ["--data.path", "t.parquet", "--data.stream", "true", "--data.shuffle_rows", "1024"],
    "text": ["--data.path", "t.csv"],
}
FIT = [
    *("fit", "--data.target", "y", "--data.id_column", "id", "--data.weight_column", "weight"),
    *("--data.batch_size", "16", "--trainer.max_epochs", "5", "--last.every_steps", "5"),
    *("--model.threshold", "f1", "--model.calibrate", "true", "--model.pos_weight", "auto"),
]


def write_table(root: Path) -> Path:
    """4,000 rows in row groups of several sizes, as Parquet and as text."""
    root.mkdir()
    table = mixed(4000)
    write(root / "t.parquet", table, [700, 1100, 64, 1500, 636])
    pacsv.write_csv(table, root / "t.csv")
    return root


def batches_seen(root: Path) -> int:
    """The number of batches of an unfinished epoch in the newest `last.ckpt`."""
    found = list(root.glob("lightning_logs/version_*/checkpoints/last.ckpt"))
    if not found:
        return 0
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)
    return int(torch.load(newest, weights_only=True)[SECTION]["batches"])


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_kills_within_epochs_and_writes_change_nothing(table: str, tmp_path: Path) -> None:
    moments = random.Random(table)
    words = [*FIT, *TABLES[table]]
    whole, parts = write_table(tmp_path / "whole"), write_table(tmp_path / "parts")
    assert runs_to_the_end(whole, words, None, None)
    inside = []
    for kill in range(KILLS):
        in_a_write = kill % 2 == 1
        seconds = None if in_a_write else moments.uniform(0, 1.5)
        if runs_to_the_end(parts, words, seconds, moments.randrange(2, 40) if in_a_write else None):
            break
        if in_a_write:
            assert list(parts.rglob("*.tmp"))
        inside.append(batches_seen(parts))
    else:
        assert runs_to_the_end(parts, words, None, None)
    assert len(inside) >= 2
    assert any(inside)
    assert_same_end(whole, parts)
