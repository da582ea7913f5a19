"""scikit-learn on the same rows and columns: numbers standardised on the training rows, indicators as they are."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from experiments.common.datasets import Dataset

from .encode import encode

LOGISTIC, BOOSTING, NETWORK = "logistic regression", "gradient boosting", "sigmoid MLPClassifier"
LONGER: dict[str, Any] = {"learning_rate_init": 0.01, "max_iter": 300}
# scikit-learn's defaults, then what people try next: a higher rate, fewer or more epochs, a second layer.
NETWORKS: dict[str, dict[str, Any]] = {
    f"{NETWORK} 100": {"hidden_layer_sizes": (100,)},
    f"{NETWORK} 100, stopped early": {"hidden_layer_sizes": (100,), "learning_rate_init": 0.01, "early_stopping": True},
    f"{NETWORK} 100, longer": {"hidden_layer_sizes": (100,), **LONGER},
    f"{NETWORK} 64-64, longer": {"hidden_layer_sizes": (64, 64), **LONGER},
}


def network(seed: int, **settings: Any) -> MLPClassifier:
    return MLPClassifier(activation="logistic", random_state=seed, **settings)


def peer(name: str) -> Callable[[int], Any]:
    """Makes the estimator of a name from a seed."""
    if name == LOGISTIC:
        return lambda seed: LogisticRegression(max_iter=1000)
    if name == BOOSTING:
        return lambda seed: HistGradientBoostingClassifier(random_state=seed)
    return lambda seed: network(seed, **NETWORKS[name])


def probabilities(name: str, dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Probability of class 1 of the held-out rows, from an estimator fitted on all of `train`."""
    encoded = encode(dataset.columns, train)
    mean = encoded.values[train].mean(0, dtype=np.float64)
    sd = encoded.values[train].std(0, dtype=np.float64)
    mean[encoded.is_indicator] = 0
    sd[encoded.is_indicator | (sd == 0)] = 1
    values = (encoded.values - mean) / sd
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is part of the setting
        fitted = peer(name)(seed).fit(values[train], dataset.labels[train])
    return np.asarray(fitted.predict_proba(values[test])[:, 1])
