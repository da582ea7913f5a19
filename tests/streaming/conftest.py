"""Pieces small enough for small files."""

import pytest

from torchnn.tables import parquet
from torchnn.training import stream_loader


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FEWEST_ROWS", 4)
    monkeypatch.setattr(parquet, "PIECE_ROWS", 16)
    monkeypatch.setattr(stream_loader, "ROWS_IN_ORDER", 32)
