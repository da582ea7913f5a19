"""What `GradientHealth` costs: time of an epoch with it by time without, in turn, in one process.

`python -m tests.runs.gradient_health_cost` prints the median ratio for a small and a wide network.
"""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.runs.helpers import trainer
from torchnn.data.batches import BatchLoader
from torchnn.tables import Table
from torchnn.training import BinaryClassifier, GradientHealth

ROUNDS = 7
NETWORKS = ([16], 32, 64_000), ([300, 300, 300], 1024, 102_400)  # hidden sizes, batch, rows


def seconds(table: Table, hidden: list[int], batch: int, watched: bool, folder: Path) -> float:
    """One epoch."""
    run = trainer(folder, max_epochs=1, callbacks=[GradientHealth()] if watched else [])
    model = BinaryClassifier(30, hidden_sizes=hidden)
    model.preprocess.fit(table.features)
    start = time.perf_counter()
    run.fit(model, BatchLoader(table, torch.arange(len(table)), batch))
    return time.perf_counter() - start


def main() -> None:
    with TemporaryDirectory() as folder:
        for hidden, batch, rows in NETWORKS:
            table = Table(
                features=torch.randn(rows, 30),
                target=(torch.rand(rows) < 0.5).float(),
                columns=("x",) * 30,
                classes=("no", "yes"),
            )
            seconds(table, hidden, batch, True, Path(folder))
            ratios = []
            for _ in range(ROUNDS):
                alone, watched = (seconds(table, hidden, batch, one, Path(folder)) for one in (False, True))
                ratios.append(watched / alone)
            name = "-".join(map(str, [30, *hidden, 1]))
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{name}, {rows // batch} steps of {batch} rows: {statistics.median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main()
