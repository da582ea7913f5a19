"""The classifier as a scikit-learn estimator, for pipelines, grid searches and calibration."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch

from torchnn.console import logging_level, need

with need("train", "torchnn.sklearn"):
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import DataConversionWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import Tags, assert_all_finite, check_random_state
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

    from torchnn.data.batches import BatchLoader, batch_size_for
    from torchnn.data.module import EVALUATION_BATCH_SIZE
    from torchnn.model.classifier import BinaryClassifier
    from torchnn.model.defaults import BEST_CHECKPOINT, EARLY_STOPPING, HIDDEN_SIZES, LR, MAX_EPOCHS, PATIENCE, TRAINER
    from torchnn.runs.callbacks import StopOnNaN
    from torchnn.tables.encode import encode
    from torchnn.tables.learn import learn_columns
    from torchnn.tables.raw import raw_table
    from torchnn.tables.roles import Roles
    from torchnn.tables.schema import Schema
    from torchnn.tables.table import Table

SEEDS = 2**31 - 1
FEWEST_TO_SPLIT = 10  # rows of a class
LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric")
MISSING_IS_FINE = "allow-nan"


class TorchnnClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """`BinaryClassifier` with the interface of scikit-learn; its defaults are those of `torchnn fit`.

    `fit` keeps a part of its rows for validation, which decides when to stop and which weights to keep. A dataframe may
    hold numbers, categories, booleans and times, with missing values. An array holds numbers, and NaN is a missing
    value.

    Args:
        hidden_sizes: number of neurons in each hidden layer; an empty list gives logistic regression.
        activation: activation of the hidden layers: identity, sigmoid, tanh, relu or step.
        lr: initial learning rate, above 0; it is halved when the validation loss stops falling.
        weight_decay: weight decay of AdamW, 0 or more; auto takes 2 / (steps per epoch).
        pos_weight: weight of the second class in the loss, above 0; auto takes (rows of the first class) / (rows of
            the second class).
        threshold: probability from which a row gets the second class, between 0 and 1; or f1, cost or recall, which
            let validation choose it.
        calibrate: whether validation chooses a temperature, so that probabilities match frequencies.
        scaling: scaling of numbers: standard, robust or none.
        categories: one_hot, embed, or auto for one-hot up to 32 values and embeddings above.
        batch_size: rows in a training batch; auto takes the power of two nearest to a hundredth of the training rows,
            from 32 to 1024.
        max_epochs: maximum number of epochs.
        patience: training stops after this number of epochs without a lower validation loss.
        val_fraction: fraction of the rows that validate, between 0 and 1. With fewer than 10 rows of a class, all rows
            train and validate.
        accelerator: accelerator of Lightning's Trainer: cpu, gpu or auto.
        random_state: seed of the weights, of the validation part and of the order of the rows: an int, a RandomState
            or None.

    Attributes:
        classes_: the two classes, sorted.
        model_: the trained `BinaryClassifier`.
        n_features_in_: number of columns of X.
        n_iter_: number of epochs trained.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> classifier = TorchnnClassifier(max_epochs=5, random_state=0).fit(X, np.where(X[:, 0] > 0, "up", "down"))
    >>> classifier.predict([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]).tolist()
    ['up', 'down']
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int] = HIDDEN_SIZES,
        activation: str = "sigmoid",
        lr: float = LR,
        weight_decay: float | Literal["auto"] = "auto",
        pos_weight: float | Literal["auto"] = 1.0,
        threshold: float | Literal["f1", "cost", "recall"] = 0.5,
        calibrate: bool = False,
        scaling: Literal["standard", "robust", "none"] = "standard",
        categories: Literal["auto", "one_hot", "embed"] = "auto",
        batch_size: int | Literal["auto"] = "auto",
        max_epochs: int = MAX_EPOCHS,
        patience: int = PATIENCE,
        val_fraction: float = 0.15,
        accelerator: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.lr = lr
        self.weight_decay = weight_decay
        self.pos_weight = pos_weight
        self.threshold = threshold
        self.calibrate = calibrate
        self.scaling = scaling
        self.categories = categories
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.val_fraction = val_fraction
        self.accelerator = accelerator
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on the rows of X.

        Args:
            X: dataframe or array, (rows, columns).
            y: the class of each row, (rows,); two different classes.
            sample_weight: weight of each row in the loss, (rows,), 0 or more; None for 1.

        Raises:
            ValueError: X, y or sample_weight has a wrong shape or wrong values, or an argument is out of range.
            TrainingDivergedError: the loss became NaN or infinite.
        """
        data, labels = self._checked(X, y)
        seed = seed_of(self.random_state)
        train, val = self._split(labels, seed)
        weight = None
        if sample_weight is not None:
            given = _check_sample_weight(sample_weight, labels, dtype=np.float32, ensure_non_negative=True)
            weight = torch.from_numpy(given / given[train].mean())
        raw, classes = raw_table(data), (str(self.classes_[0]), str(self.classes_[1]))
        names = list(raw.data.column_names)
        roles = Roles(keep=tuple(names))  # the caller has chosen the columns, so none is dropped
        schema, values = learn_columns(raw, names, torch.from_numpy(train), roles, classes, lambda sentence: None)
        table = Table(
            features=encode(values, schema),
            target=torch.from_numpy(labels.astype(np.float32)),
            columns=schema.slots,
            classes=schema.classes,
            weight=weight,
        )
        with global_settings_restored():
            torch.manual_seed(seed)
            self._train(table, schema, torch.from_numpy(train), torch.from_numpy(val), seed)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the two classes in the order of `classes_`, (rows, 2)."""
        check_is_fitted(self)
        return self.model_.predict_proba(self._columns(X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row, (rows,)."""
        positive = self.predict_proba(X)[:, 1] >= self.model_.threshold
        predicted: np.ndarray = self.classes_[positive.astype(int)]
        return predicted

    def decision_function(self, X: Any) -> np.ndarray:
        """Probability of the second class minus the threshold, (rows,)."""
        difference: np.ndarray = self.predict_proba(X)[:, 1] - self.model_.threshold
        return difference

    def _checked(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """The columns of X, and y as 0 and 1."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None.")
        data = self._columns(X, reset=True)
        num_rows = len(next(iter(data.values()))) if isinstance(data, dict) else len(data)
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = _one_column(labels)
        if labels.ndim != 1 or len(labels) != num_rows:
            raise ValueError(f"y has shape {labels.shape}, but X has {num_rows} rows: give one label per row.")
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        if type_of_target(labels) != "binary":
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {type_of_target(labels)}."
            )
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]!r}: give rows of two classes.")
        return data, codes

    def _columns(self, X: Any, reset: bool) -> Any:
        """A dataframe as it is; an array as columns named by position."""
        if hasattr(X, "columns") and hasattr(X, "__arrow_c_stream__"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if X.shape[0] == 0:
                raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
            return X
        numbers = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=MISSING_IS_FINE)
        return {f"x{position}": column for position, column in enumerate(numbers.T)}

    def _split(self, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the training and of the validation rows."""
        rows = np.arange(len(labels))
        if np.bincount(labels).min() < FEWEST_TO_SPLIT:
            return rows, rows
        train, val = train_test_split(rows, test_size=self.val_fraction, stratify=labels, random_state=seed)
        return np.sort(train), np.sort(val)

    def _train(self, table: Table, schema: Schema, train: torch.Tensor, val: torch.Tensor, seed: int) -> None:
        model = BinaryClassifier(
            in_features=len(schema.slots),
            hidden_sizes=list(self.hidden_sizes),
            activation=self.activation,
            lr=self.lr,
            weight_decay=self.weight_decay,
            pos_weight=self._pos_weight(table, train),
            threshold=self.threshold,
            calibrate=self.calibrate,
            scaling=self.scaling,
            categories=self.categories,
            schema=schema.as_plain(),
        )
        model.preprocess.fit(table.features[train])
        batch_size = batch_size_for(len(train)) if self.batch_size == "auto" else self.batch_size
        loaders = BatchLoader(table, train, batch_size, seed), BatchLoader(table, val, EVALUATION_BATCH_SIZE)
        with logging_level(logging.ERROR, *LIGHTNING_LOGGERS), tempfile.TemporaryDirectory() as folder:
            best = ModelCheckpoint(folder, save_weights_only=True, **BEST_CHECKPOINT)
            trainer = pl.Trainer(
                **{**TRAINER, "max_epochs": self.max_epochs},
                accelerator=self.accelerator,
                devices=1,
                callbacks=[StopOnNaN(), EarlyStopping(**{**EARLY_STOPPING, "patience": self.patience}), best],
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(model, *loaders)
            model.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
        self.n_iter_ = trainer.current_epoch
        self.model_ = model.cpu().eval()
        self.model_.trainer = None  # it holds the data and cannot be pickled

    def _pos_weight(self, table: Table, train: torch.Tensor) -> float:
        if self.pos_weight != "auto":
            return self.pos_weight
        weight = torch.ones(len(table)) if table.weight is None else table.weight
        positive = float((weight * table.target)[train].sum())
        return (float(weight[train].sum()) - positive) / positive


def seed_of(random_state: Any) -> int:
    """The seed of a `random_state`. An int is the seed itself, as for `torchnn fit --seed_everything`."""
    generator = check_random_state(random_state)  # raises ValueError for anything that scikit-learn does not accept
    return int(random_state) if isinstance(random_state, Integral) else int(generator.randint(SEEDS))


@contextmanager
def global_settings_restored() -> Iterator[None]:
    """Restore torch's random generator and its deterministic mode, which training sets for the whole process."""
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark


def _one_column(labels: np.ndarray) -> np.ndarray:
    warnings.warn("A column-vector y was passed when a 1d array was expected.", DataConversionWarning, stacklevel=3)
    return labels.ravel()
