"""Whole runs for any number of processes; `torchrun -m tests.distributed.runs` runs them on several."""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from torchnn.data.shares import Share, share_of
from torchnn.model import classifier
from torchnn.runs.predictions import PredictionFile
from torchnn.runs.resume import TrainingState
from torchnn.runs.savers import LastCheckpoint
from torchnn.training import BinaryClassifier, TabularDataModule

TRAINING_ROWS = 143
BATCH_SIZE = 21  # 6 steps of 21 rows and one of 17: two processes never have equal numbers of rows
STEPS = 7


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted": {"data": {"weight_column": "weight"}, "model": {"pos_weight": 3.0}},
    "chosen": {
        "data": {"weight_column": "weight"},
        "model": {"pos_weight": "auto", "threshold": "f1", "calibrate": True},
    },
    "accumulated": {"data": {"weight_column": "weight"}, "trainer": {"accumulate_grad_batches": 3}},
    "lonely row": {"data": {"batch_size": 71}},  # the third step has one row
    "squared": {"model": {"loss": "mse"}},
    "line search": {
        "model": {
            "optimizer": "LBFGS",
            "optimizer_args": {"line_search_fn": "strong_wolfe", "max_iter": 2},
            "weight_decay": 0.0,
        },
        "data": {"batch_size": 71},
    },
    "streamed": {"data": {"stream": True, "shuffle_rows": 70, "weight_column": "weight"}},
    "few validate": {"val": "few"},  # fewer than processes
    "pairs": {"pairs": True},  # a loader that knows nothing of other processes
    "sharded": {"data": {"weight_column": "weight"}, "sharded": True},
    "mean of means": {"recipe": "mean of means"},
}


class Sharded(BinaryClassifier):
    """A classifier whose parameters are sharded over the processes (FSDP2)."""

    def configure_model(self) -> None:
        if isinstance(self.network, FSDPModule):  # Lightning calls this for each of fit and test
            return
        mesh = None if self.device_mesh is None else self.device_mesh["data_parallel"]
        for layer in self.network.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.network, mesh=mesh)


def write_tables(folder: Path) -> None:
    """Write tables of training, validation and test rows, with several row groups each."""
    random = np.random.default_rng(0)
    for name, num_rows in (("train", TRAINING_ROWS), ("val", 61), ("test", 35), ("few", 2)):
        x = random.standard_normal((4, num_rows))
        table = {f"x{i}": column for i, column in enumerate(x)}
        table["word"] = random.choice(["a", "b", "c"], num_rows)
        table["weight"] = random.random(num_rows) + 0.5
        table["y"] = (x[0] * x[1] + 0.3 * random.standard_normal(num_rows) > 0).astype(int)
        table["y"][:2] = 0, 1
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=40)


def trained(
    folder: Path,
    name: str | dict[str, Any],
    resume: str = "",
    max_steps: int = -1,
    keep: str = "",
    output: str = "",
) -> dict[str, Any]:
    """Train, test and predict in float64, and return all results.

    Args:
        folder: the folder with the tables.
        name: a name of `RUNS`, or the description of another run.
        resume: a checkpoint to resume from.
        max_steps: steps after which training ends, also within an epoch.
        keep: name of a folder for the last checkpoint.
        output: name of a file for the predictions.
    """
    torch.manual_seed(0)
    run = RUNS[name] if isinstance(name, str) else name
    files = {"train": "train", "val": run.get("val", "val"), "test": "test"}
    tables = {part: str(folder / f"{name}.parquet") for part, name in files.items()}
    options = {"batch_size": BATCH_SIZE, "stream": False, **run.get("data", {})}
    data = TabularDataModule(tables["train"], "y", val_path=tables["val"], test_path=tables["test"], **options)
    by_default = {"optimizer": "SGD", "lr": 0.3, "optimizer_args": {"momentum": 0.9}, "weight_decay": 0.0}
    model_options = {"hidden_sizes": [5], "lr_scheduler": None, **by_default, **run.get("model", {})}
    sharded = "sharded" in run and "WORLD_SIZE" in os.environ
    model = (Sharded if sharded else BinaryClassifier)(data.num_features, schema=data.plain_schema, **model_options)
    if "sharded" in run:
        model.double()
    callbacks: list[Any] = [TrainingState(), *([LastCheckpoint(every_seconds=None)] if keep else [])]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", "1")),
        strategy=ModelParallelStrategy() if sharded else "ddp" if "WORLD_SIZE" in os.environ else "auto",
        precision="32-true" if "sharded" in run else "64-true",  # which Lightning refuses with FSDP2
        max_epochs=2,
        max_steps=max_steps,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(keep),
        logger=False,
        callbacks=callbacks,
        default_root_dir=folder / keep,
        deterministic=True,
        **run.get("trainer", {}),
    )
    recipe = share_of if "recipe" not in run else (lambda trainer, batch_idx, num_rows, device: Share(num_rows))
    with mock.patch.object(classifier, "share_of", recipe):
        if "pairs" in run:
            model.preprocess.fit(data.training_features())
            trainer.fit(model, Pairs(data))
        else:
            trainer.fit(model, data, ckpt_path=folder / resume if resume else None, weights_only=True)
    found = {f"weights/{name}": whole(value).clone() for name, value in model.state_dict().items()}
    found |= {f"fit/{name}": value.clone() for name, value in trainer.callback_metrics.items()}
    if max_steps == -1:
        (metrics,) = trainer.test(model, data, verbose=False)
        found |= {f"test/{name}": torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
        found["threshold"] = torch.tensor(model.threshold)
    if output:
        trainer.callbacks.append(PredictionFile(folder / output))  # type: ignore[attr-defined]
        trainer.predict(model, data, return_predictions=False)
    return found


class Pairs(list[tuple[Tensor, Tensor]]):
    """This process's features and target of each batch; Lightning would take a plain list for several loaders."""

    def __init__(self, data: TabularDataModule) -> None:
        rank, num_ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        rows = [batch[rank::num_ranks] for batch in data.rows["train"].split(BATCH_SIZE)]
        super().__init__((data.table.features[own], data.table.target[own]) for own in rows)


def whole(tensor: Tensor) -> Tensor:
    """A whole tensor, gathered from the processes if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differences(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each result, relative where the result is above 1."""
    assert a.keys() == b.keys()
    scales = {name: value.double().abs().clamp(min=1.0) for name, value in a.items()}
    return {name: float(((value.double() - b[name].double()).abs() / scales[name]).max()) for name, value in a.items()}


def main(folder: Path, plan: dict[str, list[Any]]) -> None:
    """Do several runs, each given by the arguments of `trained`, and save the results of each under its key."""
    torch.set_num_threads(1)
    for key, (name, arguments) in plan.items():
        found = trained(folder, name, **arguments)
        if torch.distributed.get_rank() == 0:
            torch.save(found, folder / f"{key}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
