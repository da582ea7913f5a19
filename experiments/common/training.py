"""Data for training: the data module of a table, or pairs of features and target from torch's own loader."""

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
    """The data module of some rows of a data set, which learns from all columns and prints no notes.

    Args:
        dataset: the data set, for its target and classes.
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
    """A loader of features (rows, columns) and target (rows,), shuffled in every epoch if `shuffle_seed` is given.

    It indexes the tensors once per batch, which for small tables is many times as fast as row by row.
    """
    dataset = TensorDataset(features, target)
    if shuffle_seed is None:
        order: Any = SequentialSampler(dataset)
    else:
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(shuffle_seed))
    return DataLoader(dataset, sampler=BatchSampler(order, batch_size, drop_last=False), batch_size=None)
