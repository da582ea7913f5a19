"""A small table and a quiet trainer."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from torchnn.tables.table import Table


def table(num_rows: int) -> Table:
    features = torch.arange(2.0 * num_rows).view(num_rows, 2)
    target = (torch.arange(num_rows) % 3 == 0).float()
    return Table(features=features, target=target, columns=("a", "b"), classes=("no", "yes"))


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    options.setdefault("enable_checkpointing", False)
    return pl.Trainer(default_root_dir=folder, num_sanity_val_steps=0, log_every_n_steps=1, **quiet, **options)
