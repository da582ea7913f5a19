"""Which rows train, which validate and which are held out."""

from typing import Any, Literal

import numpy as np
import torch
from sklearn.model_selection import (
    GroupShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from torch import Tensor

Parts = dict[str, Tensor]
Split = Literal["random", "time", "group"]


def split_by_class(target: Tensor, val_fraction: float, test_fraction: float, seed: int) -> Parts:
    """Row numbers of "train", "val" and "test", disjoint, each with the class proportions of `target` (rows,)."""
    rows, labels = np.arange(len(target)), _labels(target)
    share_of_rest = val_fraction / (1 - test_fraction)
    try:
        rest, test = train_test_split(rows, test_size=test_fraction, stratify=labels, random_state=seed)
        train, val = train_test_split(rest, test_size=share_of_rest, stratify=labels[rest], random_state=seed)
    except ValueError as error:
        raise too_small(val_fraction, test_fraction, len(rows)) from error
    return _sorted(train, val, test)


def split_by_time(order: np.ndarray, target: Tensor, val_fraction: float, test_fraction: float) -> Parts:
    """The latest rows are held out, those before them validate, the earliest train.

    Rows of the same time stay together, so that the fractions are met up to them.

    Args:
        order: the time of each row, any numbers, (rows,).
        target: (rows,).
        val_fraction: fraction of the rows that validate.
        test_fraction: fraction of the rows that are held out.

    Raises:
        ValueError: a part without rows of both classes.
    """
    times = np.sort(order)
    num_rows = len(times)
    first_test = times[min(num_rows - 1, round(num_rows * (1 - test_fraction)))]
    first_val = times[min(num_rows - 1, round(num_rows * (1 - test_fraction - val_fraction)))]
    train, test = np.flatnonzero(order < first_val), np.flatnonzero(order >= first_test)
    val = np.flatnonzero((order >= first_val) & (order < first_test))
    return _checked(train, val, test, target, val_fraction, test_fraction)


def split_by_group(groups: Any, target: Tensor, val_fraction: float, test_fraction: float, seed: int) -> Parts:
    """Random, but rows of one group stay together; the fractions are of groups.

    Raises:
        ValueError: a part without rows of both classes.
    """
    rows = np.arange(len(target))
    try:
        rest, test = next(GroupShuffleSplit(1, test_size=test_fraction, random_state=seed).split(rows, groups=groups))
        share_of_rest = val_fraction / (1 - test_fraction)
        shuffle = GroupShuffleSplit(1, test_size=share_of_rest, random_state=seed)
        train, val = next(shuffle.split(rest, groups=groups[rest]))
    except ValueError as error:
        raise too_small(val_fraction, test_fraction, len(rows)) from error
    return _checked(rest[train], rest[val], test, target, val_fraction, test_fraction)


def split_fold(target: Tensor, groups: Any, folds: int, fold: int, val_fraction: float, seed: int) -> Parts:
    """Fold number `fold` of `folds` is held out; of the others, `val_fraction` validates.

    Args:
        target: (rows,); every fold gets its class proportions.
        groups: of each row, (rows,), which stay together, or None.
        folds: how many.
        fold: from 0.
        val_fraction: of the rows that are not held out.
        seed: of the shuffle, the same for all folds.

    Raises:
        ValueError: fewer rows of a class than folds.
    """
    labels = _labels(target)
    if min((labels == 0).sum(), (labels == 1).sum()) < folds:
        raise ValueError(f"folds is {folds}: there are fewer rows of one class, choose fewer folds.")
    if groups is not None and len(np.unique(groups)) < folds:
        raise ValueError(f"folds is {folds}: there are only {len(np.unique(groups))} groups, choose fewer folds.")
    cls = StratifiedKFold if groups is None else StratifiedGroupKFold
    splits = cls(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
    rest, test = list(splits)[fold]
    try:
        if groups is None:
            train, val = train_test_split(rest, test_size=val_fraction, stratify=labels[rest], random_state=seed)
        else:
            shuffle = GroupShuffleSplit(1, test_size=val_fraction, random_state=seed)
            inside, beside = next(shuffle.split(rest, groups=groups[rest]))
            train, val = rest[inside], rest[beside]
    except ValueError as error:
        raise too_small(val_fraction, 1 / folds, len(labels)) from error
    return _checked(train, val, test, target, val_fraction, 1 / folds)


def _labels(target: Tensor) -> np.ndarray:
    """Classes of hard and soft targets, int64."""
    labels: np.ndarray = (target >= 0.5).long().numpy()
    return labels


def _checked(
    train: np.ndarray, val: np.ndarray, test: np.ndarray, target: Tensor, val_fraction: float, test_fraction: float
) -> Parts:
    labels = _labels(target)
    if any(len(np.unique(labels[part])) < 2 for part in (train, val, test)):
        raise too_small(val_fraction, test_fraction, len(target))
    return _sorted(train, val, test)


def too_small(val_fraction: float, test_fraction: float, num_rows: int) -> ValueError:
    """What to raise for a part without both classes."""
    return ValueError(
        f"val_fraction {val_fraction} and test_fraction {test_fraction:g} of {num_rows} rows leave a part without "
        "a row of each class: choose others, or give more rows."
    )


def _sorted(train: np.ndarray, val: np.ndarray, test: np.ndarray) -> Parts:
    return {name: torch.from_numpy(np.sort(part)) for name, part in (("train", train), ("val", val), ("test", test))}
