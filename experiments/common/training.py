"""Data for training as a user would: a table's data module, or pairs of features and target from torch's own loader."""

import io
from contextlib import redirect_stderr
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from torchnn.training import TabularDataModule

from .datasets import Dataset


def data_module(dataset: Dataset, table: pa.Table, **options: Any) -> TabularDataModule:
    """The data module of some rows of a set, all columns of which are learned from, without its remarks.

    Args:
        dataset: whose target and classes they have.
        table: the rows.
        options: further arguments of `TabularDataModule`.
    """
    with redirect_stderr(io.StringIO()):
        return TabularDataModule(
            table,
            dataset.target,
            str(dataset.positive),
            keep=dataset.table.column_names,
            **options,
        )


def batches(features: Tensor, target: Tensor, batch_size: int, shuffle_seed: int | None = None) -> Any:
    """A loader of features (rows, columns) and target (rows,), shuffled anew in every epoch if there is a seed.

    It takes the rows of a batch by one index, which for small tables is many times as fast as one after the other.
    """
    dataset = TensorDataset(features, target)
    if shuffle_seed is None:
        order: Any = SequentialSampler(dataset)
    else:
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(shuffle_seed))
    return DataLoader(dataset, sampler=BatchSampler(order, batch_size, drop_last=False), batch_size=None)
