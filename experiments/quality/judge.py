"""Splits, scores, paired differences, and the bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from experiments.common.datasets import Dataset

FOLDS = 5
SEEDS_OF_OFFICIAL_SPLIT = 3
BEHIND_LOGISTIC, BEHIND_NETWORK = 0.003, 0.01
METRICS = ("auroc", "accuracy", "log_loss")
Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Score:
    """The scores of one contender on the held-out rows of one split."""

    dataset: str
    split: int
    contender: str
    auroc: float
    accuracy: float
    log_loss: float
    seconds: float


@dataclass(frozen=True)
class Difference:
    """AUROC of one contender minus that of another, split by split."""

    mean: float
    standard_error: float


def splits_of(dataset: Dataset, official: bool) -> list[Split]:
    """Training and held-out rows: five stratified folds, or the official split once for each of three seeds."""
    rows = np.arange(len(dataset.table))
    if official:
        held_out = dataset.num_official_test
        return [(rows[held_out:], rows[:held_out])] * SEEDS_OF_OFFICIAL_SPLIT
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(rows, dataset.labels))


def score(name: str, split: int, contender: str, labels: np.ndarray, probability: np.ndarray, seconds: float) -> Score:
    return Score(
        name,
        split,
        contender,
        float(roc_auc_score(labels, probability)),
        float(accuracy_score(labels, probability >= 0.5)),
        float(log_loss(labels, probability)),
        seconds,
    )


def difference(scores: Sequence[Score], contender: str, other: str) -> Difference:
    """Mean and standard error of the paired differences of AUROC over the splits of one set."""
    of = {name: {s.split: s.auroc for s in scores if s.contender == name} for name in (contender, other)}
    paired = np.array([of[contender][split] - of[other][split] for split in sorted(of[contender])])
    return Difference(float(paired.mean()), float(paired.std(ddof=1) / np.sqrt(len(paired))))


def reaches_logistic(found: Difference) -> bool:
    """Not below by more than one standard error or 0.003, whichever is larger."""
    return found.mean >= -max(found.standard_error, BEHIND_LOGISTIC)


def reaches_network(found: Difference) -> bool:
    """Not below by more than 0.01."""
    return found.mean >= -BEHIND_NETWORK
