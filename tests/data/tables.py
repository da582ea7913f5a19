"""A small table with every kind of column, and a model trained on it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tests.runs.helpers import trainer
from torchnn.training import BinaryClassifier, TabularDataModule

ROWS = 400


def mixed_columns(num_rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    """Numbers with missing values, a category, a boolean and a time; `late` depends on the first two."""
    draw = np.random.default_rng(seed)
    hours, job = draw.normal(40, 10, num_rows), draw.choice(["cook", "nurse", "smith"], num_rows)
    score = (hours - 40) / 10 + 2 * (job == "nurse") - 0.7 + draw.normal(0, 0.5, num_rows)
    return {
        "hours": pa.array(np.where(draw.random(num_rows) < 0.1, np.nan, hours), from_pandas=True),
        "job": pa.array(job),
        "member": pa.array(draw.random(num_rows) < 0.5),
        "since": pa.array(np.datetime64("2020-01-01") + draw.integers(0, 900, num_rows)),
        "late": pa.array(np.where(score > 0, "yes", "no")),
    }


@cache
def mixed_data() -> TabularDataModule:
    return TabularDataModule(mixed_columns(), target="late")  # type: ignore[arg-type]


def mixed_model(folder: Path, **options: Any) -> BinaryClassifier:
    """A model that has learned what `late` depends on."""
    data = mixed_data()
    torch.manual_seed(0)
    model = BinaryClassifier(data.num_features, schema=data.plain_schema, **options)
    trainer(folder, max_epochs=30).fit(model, data)
    return model.eval()
