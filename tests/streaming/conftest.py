"""Small pieces, so that small files have several of them."""

import pytest

from torchnn.data import stream_loader
from torchnn.tables import parquet


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FEWEST_PIECE_ROWS", 4)
    monkeypatch.setattr(parquet, "PIECE_ROWS", 16)
    monkeypatch.setattr(stream_loader, "ROWS_IN_ORDER", 32)
