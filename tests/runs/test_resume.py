"""A run that is interrupted anywhere and resumed ends like an uninterrupted one, bit for bit."""

import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from tests.cli.helpers import rows_of
from tests.runs.helpers import trainer
from torchnn.data.batches import as_batch
from torchnn.runs.callbacks import LearningCurve
from torchnn.runs.resume import EarlyStopping, TrainingState
from torchnn.runs.savers import BestCheckpoint, LastCheckpoint
from torchnn.training import BinaryClassifier, TabularDataModule

BATCHES = 7  # of an epoch: 397 rows by 64
EPOCHS = 3


class CutError(Exception):
    """Ends a run, as a kill would."""


class Watcher(pl.Callback):
    """Records the rows of each step, draws from every global generator, and interrupts the run after a step."""

    def __init__(self, cut_after: int | None) -> None:
        self.cut_after = cut_after
        self.rows: dict[int, list[int]] = {}
        self.drawn: dict[int, tuple[float, ...]] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        if trainer.global_step == self.cut_after:
            raise CutError
        self.rows[trainer.global_step] = as_batch(batch).row.tolist()
        self.drawn[trainer.global_step] = (float(torch.rand(())), float(np.random.random()), random.random())


class Noise(pl.Callback):
    """A regulariser of a user: random numbers that change the weights."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                parameter.grad += 1e-3 * torch.randn_like(parameter) * random.random()


class Curve(LearningCurve):
    """The points of the curve without the picture."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass


class Run:
    """One call of `Trainer.fit`, with everything that torchnn adds to it."""

    def __init__(self, folder: Path, resume: bool = False, cut_after: int | None = None, **options: Any) -> None:
        model_options = {"hidden_sizes": [4], "optimizer": "AdamW", **options.pop("model", {})}
        pl.seed_everything(len(list(folder.glob("runs/*"))))  # a different seed for every run, which must not matter
        torch.manual_seed(0)
        model = BinaryClassifier(30, **model_options)
        torch.manual_seed(99 if resume else 1)
        self.watcher = Watcher(cut_after)
        self.last = LastCheckpoint(every_steps=options.pop("every_steps", 1))
        stopping = EarlyStopping(patience=options.pop("patience", 99), strict=False)
        self.best = BestCheckpoint(monitor="val_loss", filename="best-{epoch}", save_top_k=2)
        callbacks = [self.watcher, Noise(), Curve(), TrainingState(), stopping, self.best, self.last]
        self.trainer = trainer(
            folder,
            **{"max_epochs": EPOCHS, "callbacks": callbacks, "enable_checkpointing": True, **options},
        )
        self.trainer.loggers = [CSVLogger(folder, name="runs")]
        previous = sorted(folder.glob("runs/version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        checkpoint = previous[-1] if resume and previous else None
        self.model = model
        try:
            self.trainer.fit(model, TabularDataModule(batch_size=64), ckpt_path=checkpoint, weights_only=True)
        except CutError:
            assert cut_after is not None
        self.folder = Path(self.trainer.loggers[0].log_dir or "")

    def state(self) -> dict[str, Any]:
        """Everything that must not depend on where the run was interrupted."""
        saved = torch.load(self.folder / "checkpoints/last.ckpt", weights_only=True)
        keep = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
        curve, loops = saved["callbacks"]["Curve"], saved["loops"]["fit_loop"]
        best = {Path(path).name: float(score) for path, score in self.best.best_k_models.items()}
        progress = {name: value for name, value in loops.items() if "progress" in name and "val_loop" not in name}
        generators = saved["torchnn"]["generators"]
        return {name: saved[name] for name in keep} | {
            "curve": curve, "best": best, "progress": progress, "generators": generators,
            "best_weights": torch.load(self.best.best_model_path, weights_only=True)["state_dict"],
            "metrics": rows_of(self.folder / "metrics.csv"),
        }  # fmt: skip


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths at which two nested states differ."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        keys = [f"{where} keys {a.keys() ^ b.keys()}"] if a.keys() != b.keys() else []
        return keys + [found for key in a.keys() & b.keys() for found in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} items"]
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differences(*pair, f"{where}/{i}")]
    return [] if a == b else [f"{where}: {a} and {b}"]


def assert_same(whole: Run, parts: list[Run]) -> None:
    assert differences(whole.state(), parts[-1].state()) == []
    for name in ("rows", "drawn"):
        together: dict[int, Any] = {}
        for part in parts:
            together |= getattr(part.watcher, name)
        assert differences(getattr(whole.watcher, name), together) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("whole"))


def test_every_row_is_trained_on_once_in_an_epoch(whole: Run) -> None:
    for epoch in range(EPOCHS):
        steps = range(epoch * BATCHES, (epoch + 1) * BATCHES)
        rows = [row for step in steps for row in whole.watcher.rows[step]]
        assert sorted(rows) == sorted(TabularDataModule().rows["train"].tolist())


QUICK = (5, 7, 8)  # inside an epoch, between two, after the first step of one


@pytest.mark.parametrize(
    "cut_after", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in range(1, EPOCHS * BATCHES)]
)
def test_a_run_interrupted_after_any_step_ends_like_a_whole_one(cut_after: int, whole: Run, tmp_path: Path) -> None:
    first = Run(tmp_path, cut_after=cut_after)
    second = Run(tmp_path, resume=True)
    assert min(second.watcher.rows) == cut_after, "no step is trained twice"
    assert_same(whole, [first, second])


@pytest.mark.slow
def test_a_run_interrupted_repeatedly_ends_like_a_whole_one(whole: Run, tmp_path: Path) -> None:
    cuts = [3, 4, 7, 8, 12, 14, 20]
    parts = [Run(tmp_path, resume=index > 0, cut_after=cut) for index, cut in enumerate(cuts)]
    assert_same(whole, [*parts, Run(tmp_path, resume=True)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 3},
        {"val_check_interval": 3, "patience": 2, "max_epochs": 9, "model": {"lr": 0.4}},
        {"accumulate_grad_batches": 2},
        {"check_val_every_n_epoch": 2},
        {"max_steps": 11, "max_epochs": -1},
        {"max_steps": 14, "max_epochs": -1, "val_check_interval": 2},
        {"limit_train_batches": 4},
        {"gradient_clip_val": 0.1},
        {"precision": "64-true"},
        {"patience": 2, "max_epochs": 30, "model": {"lr": 0.4}},
        {"model": {"lr_scheduler": "ReduceLROnPlateau", "lr": 0.3, "lr_scheduler_args": {"patience": 0}}},
        {"model": {"lr_scheduler": "OneCycleLR", "lr_scheduler_args": {"max_lr": 0.1, "total_steps": 22},
                   "lr_scheduler_interval": "step"}},
        {"model": {"lr_scheduler": "MultiStepLR", "lr_scheduler_args": {"milestones": [1, 2]}}},
        {"model": {"optimizer": "SGD", "optimizer_args": {"momentum": 0.9}}},
        {"model": {"optimizer": "LBFGS", "weight_decay": 0.0, "lr": 0.1}, "limit_train_batches": 4},
    ],
    ids=lambda options: str(options)[:60],
)  # fmt: skip
def test_interruptions_with_other_settings(options: dict[str, Any], tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", **{**options})
    steps = whole.trainer.global_step
    for cut in sorted({3, 4, 6, 7, 8, steps - 1} & set(range(1, steps))):
        folder = tmp_path / str(cut)
        first = Run(folder, cut_after=cut, **{**options})
        assert_same(whole, [first, Run(folder, resume=True, **{**options})])
