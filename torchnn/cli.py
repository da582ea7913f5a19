"""The `torchnn` command: Lightning's command line over `BinaryClassifier` and `TabularDataModule`."""

import logging
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerStatus

from torchnn.cli_errors import cannot_write, fail, options, with_flag
from torchnn.cli_parser import OneSentenceParser
from torchnn.cli_resume import (
    DATA_DECIDES,
    MAY_CHANGE,
    OF_ANOTHER_TABLE,
    flat,
    hyper_parameters,
    plain,
    resumed_settings,
    settings_of,
)
from torchnn.tables import TableError
from torchnn.training.atomic import AtomicCheckpointIO, CheckpointWriteError
from torchnn.training.callbacks import (
    LearningCurve,
    StopOnNaN,
    TrainingDivergedError,
    last_checkpoint,
    run_folder,
)
from torchnn.training.checkpoints import CheckpointError, find_checkpoint, read_checkpoint
from torchnn.training.classifier import BinaryClassifier
from torchnn.training.data import TabularDataModule
from torchnn.training.defaults import EARLY_STOPPING, MAX_EPOCHS
from torchnn.training.optimisers import ScheduleError
from torchnn.training.predictions import PredictionFile
from torchnn.training.report import TestReport
from torchnn.training.resume import EarlyStopping, TrainingState
from torchnn.training.savers import BestCheckpoint, LastCheckpoint

REPORTED = ("accuracy", "auroc", "log_loss", "average_precision", "f1", "calibration_error")
MONITORED = ("val_loss", "train_loss", *(f"val_{name}" for name in REPORTED))
BETTER_WHEN_HIGH = ("accuracy", "auroc", "average_precision", "f1")
STAGES = {"fit": ("train", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
HARMLESS = (
    r".*smaller than the logging interval.*",  # nothing is logged by step, so a short epoch loses nothing
    r".*dirpath has changed from.*",  # a later run never writes into the folder of an earlier one
    r".*callbacks used to create the checkpoint need.*",  # those are of training, which testing does not do
    r".*could not find the monitored key.*",  # max_steps may end a run before its first validation
    r".*ReduceLROnPlateau conditioned on metric.*not available.*",  # the same
    r".*Checkpoint directory .* exists and is not empty.*",  # nothing in it is replaced
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning's to mend
)
ONE_SENTENCE = (
    *(CheckpointError, CheckpointWriteError, ScheduleError, TableError),
    *(TrainingDivergedError, MisconfigurationException),
)
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # of a state


class TorchnnCLI(LightningCLI):
    """fit, validate, test and predict, with the defaults, the checks and the report of torchnn."""

    model: BinaryClassifier
    datamodule: TabularDataModule

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Subcommands, each with the arguments of the Trainer's method that are no flags."""
        data = {"model", "dataloaders", "datamodule", "weights_only", "verbose", "return_predictions"}
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": data,
            "test": data,
            "predict": data,
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.set_defaults(
            {
                **{f"early_stopping.{name}": value for name, value in EARLY_STOPPING.items()},
                "early_stopping.strict": False,  # max_steps may end a run before its first validation
                "checkpoint.monitor": "val_loss",
                "checkpoint.filename": "best-{epoch}",
            }
        )
        for source, target in DATA_DECIDES.items():
            parser.link_arguments(f"data.{source}", f"model.{target}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        given = parser.parse_args(args, defaults=False)[self.config.subcommand]
        self.given = dict(flat(given.as_dict()))

    def _parse_ckpt_path(self) -> None:
        """Resolve --ckpt_path, refuse a file that is not safe or does not fit, and take its hyper-parameters."""
        subcommand = self.config.subcommand
        config = self.config[subcommand]
        wanted = config.get("ckpt_path") or (None if subcommand == "fit" else "best")
        self.checkpoint: dict[str, Any] | None = None
        if wanted is None:
            return
        path = find_checkpoint(wanted, Path(config.trainer.default_root_dir or "."))
        self.checkpoint = read_checkpoint(path, to_continue=subcommand == "fit")
        config.ckpt_path = str(path)
        another_table = self._is_another_table(config.data, path)
        may_change = frozenset() if subcommand == "fit" else MAY_CHANGE
        if another_table:
            may_change |= OF_ANOTHER_TABLE
        for group, name, value in hyper_parameters(self.checkpoint, path, config, self.given, may_change):
            config[group][name] = value
        config.data.schema = self.checkpoint["hyper_parameters"].get("schema")
        if another_table:
            config.data.part = "all"  # nothing of it was trained on, so nothing has to be left out
        if subcommand == "fit":
            self._take_settings(self.checkpoint, path)
        if wanted != str(path):
            sys.stderr.write(f"torchnn: {subcommand} takes {path}\n")

    def _is_another_table(self, data: Any, path: Path) -> bool:
        """Whether a table is named that the checkpoint was not trained on.

        Raises:
            CheckpointError: no table is named, and the checkpoint names none.
        """
        assert self.checkpoint is not None
        trained_on = self.checkpoint.get("datamodule_hyper_parameters", {})
        if "data.path" in self.given and plain(data.path) != plain(trained_on.get("path")):
            return bool(self.config.subcommand != "fit")
        if "path" not in trained_on:
            raise CheckpointError(f"{path} was trained on a table in memory: give --data.path.")
        return False

    def _take_settings(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Go on with the settings of the checkpoint's run, where this call gives no others."""
        used = dict(flat(self._plain_config()))
        nested: dict[str, Any] = {}
        for name, value in resumed_settings(checkpoint, path, self.given, used).items():
            *groups, argument = name.split(".")
            (nested.setdefault(groups[0], {}) if groups else nested)[argument] = value
        self.config = self.parser.parse_object({"fit": nested}, self.config)

    def _plain_config(self) -> dict[str, Any]:
        """The arguments of this call as a file would hold them."""
        text = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml")
        return dict(yaml.safe_load(text)[self.config.subcommand])

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            fail(f"--seed_everything: {error}: give a whole number from 0 to 4294967295.")

    def before_instantiate_classes(self) -> None:
        """Refuse what would train, judge or report nothing, and judge each metric in its own direction."""
        config = self.config[self.config.subcommand]
        output = config.get("output")
        try:
            self.prediction_file = PredictionFile(Path(output)) if output else None
        except ValueError as error:
            fail(f"--output {error}")
        if config.trainer.barebones:
            fail("--trainer.barebones switches off the metrics that torchnn reports: leave it out.")
        if config.trainer.max_epochs == 0 or config.trainer.max_steps == 0:
            fail("--trainer.max_epochs and --trainer.max_steps 0 would train nothing: give 1 or more.")
        for stage in STAGES[self.config.subcommand]:
            if config.trainer[f"limit_{stage}_batches"] == 0:
                fail(f"--trainer.limit_{stage}_batches 0 leaves nothing to {self.config.subcommand}: give 1 or more.")
        for group in ("early_stopping", "checkpoint"):
            monitor = config[group].monitor
            if monitor not in MONITORED:
                fail(f"--{group}.monitor is {monitor!r}: choose one of {', '.join(MONITORED)}.")
            if config.trainer.limit_val_batches == 0 and monitor != "train_loss":
                fail(f"--trainer.limit_val_batches 0 leaves no {monitor}: set --{group}.monitor train_loss too.")
            better = "max" if monitor.removeprefix("val_") in BETTER_WHEN_HIGH else "min"
            if f"{group}.mode" in self.given and config[group].mode != better:
                fail(f"--{group}.mode {config[group].mode} would keep the worst {monitor}: leave it out.")
            config[group].mode = better

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except MisconfigurationException as error:
            fail(f"the trainer refuses its arguments: {error}")
        except ValueError as error:
            fail(with_flag(str(error), options(self._parser(self.config.subcommand))))
        if self.checkpoint is not None:
            self._check_same_table()

    def _check_same_table(self) -> None:
        """Refuse held-out rows of a table that is no longer what the checkpoint was trained on."""
        assert self.checkpoint is not None
        trained = self.checkpoint.get("datamodule_hyper_parameters", {}).get("fingerprint")
        given = self.datamodule.hparams.get("fingerprint")
        if not self.datamodule.evaluates_all and trained != given:
            raise CheckpointError(
                f"{self.datamodule.hparams['path']} has changed since the checkpoint was trained on it, so nobody "
                "knows which rows were held out: give --data.part all to take all of them, or the table as it was."
            )

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        on_terminal = sys.stdout.isatty()
        for quiet_when_piped in ("enable_progress_bar", "enable_model_summary"):
            if config[quiet_when_piped] is None:
                kwargs[quiet_when_piped] = on_terminal
        settings = settings_of(self._plain_config(), self.given) if self.subcommand == "fit" else None
        self.training_state = TrainingState(settings)
        callbacks = [StopOnNaN(), LearningCurve(), TestReport(), self.training_state]
        if self.prediction_file is not None:
            config.logger = False  # nothing but the file was asked for
        if config.logger is False:
            if self.subcommand == "predict" and self.prediction_file is None:
                fail("--trainer.logger false leaves predict without a run folder to write into: give --output.")
            self.save_config_callback = None  # it would write beside the user's files, where there is no run folder
        elif not config.fast_dev_run:
            callbacks.append(LearningRateMonitor(logging_interval="epoch"))
        if config.logger in (None, True):
            kwargs["logger"] = CSVLogger(config.default_root_dir or ".", name="lightning_logs")
        self.trainer_defaults["callbacks"] = callbacks
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # else the user's own plug-in
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> pl.Trainer:
        if config["enable_checkpointing"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        return super()._instantiate_trainer(config, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:
                saved = last_checkpoint(self.trainer)
                advice = f"continue with torchnn fit --ckpt_path {saved}" if saved else "no checkpoint had been saved"
                fail(f"interrupted in epoch {self.trainer.current_epoch}; {advice}.", status=130)
            raise

    def fit(self, ckpt_path: str | None, **kwargs: Any) -> None:
        """Train, then test the best checkpoint on the held-out rows."""
        try:
            self.trainer.fit(**kwargs, ckpt_path=ckpt_path, weights_only=True)
        except UNREADABLE as error:
            if ckpt_path is None or self.training_state.started:
                raise
            raise CheckpointError(f"checkpoint {ckpt_path} cannot be continued: {error}") from error
        if ckpt_path is not None and not self.training_state.started:
            sys.stderr.write("torchnn: nothing is left to train: give more --trainer.max_epochs to go on\n")
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or None
        self.test(ckpt_path=best, **kwargs)

    def validate(self, ckpt_path: str | None, **kwargs: Any) -> None:
        self.trainer.validate(**kwargs, ckpt_path=ckpt_path, weights_only=True, verbose=False)
        self._report("val")

    def test(self, ckpt_path: str | None, **kwargs: Any) -> None:
        self.trainer.test(**kwargs, ckpt_path=ckpt_path, weights_only=True, verbose=False)
        self._report("test")

    def predict(self, ckpt_path: str | None, **kwargs: Any) -> None:
        """Write number or id, probability and label of each row to --output, or to the run folder."""
        if self.prediction_file is None:
            folder = run_folder(self.trainer)
            self.prediction_file = PredictionFile((folder or Path()) / "predictions.csv")
        self.trainer.callbacks.append(self.prediction_file)  # type: ignore[attr-defined]
        self.trainer.predict(**kwargs, ckpt_path=ckpt_path, weights_only=True, return_predictions=False)
        if self.trainer.is_global_zero:
            print(f"predictions {self.prediction_file.path}")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--output", type=str | None, default=None, help="new .csv, .tsv or .parquet; null for the run folder"
            )
        return parser

    def _report(self, stage: str) -> None:
        if not self.trainer.is_global_zero:
            return
        if self._get(self.config, "trainer").fast_dev_run:
            print("dry run: every stage ran on one batch, nothing was kept")
            return
        for name in REPORTED:
            print(f"{name} {float(self.trainer.callback_metrics[f'{stage}_{name}']):.4f}")
        folder = run_folder(self.trainer)
        if folder is not None:
            print(f"run {folder}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the words after `torchnn`; None takes them from the command line.

    Raises:
        SystemExit: with status 2 after wrong input, 130 after an interruption.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    try:
        TorchnnCLI(
            BinaryClassifier,
            TabularDataModule,
            args=None if args is None else list(args),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=OneSentenceParser,
            parser_kwargs={
                "prog": "torchnn",
                "description": "Train and use a classifier; `torchnn check --help`: prove a hand-written backward; "
                "`torchnn explain --help`: see backpropagation happen; `torchnn export --help`: write ONNX. "
                "Class names in arguments and --config are code of your own; checkpoints and tables never name any.",
                "version": version("torchnn"),
            },
            trainer_defaults={"max_epochs": MAX_EPOCHS, "num_sanity_val_steps": 0, "deterministic": "warn"},
        )
    except ONE_SENTENCE as error:
        fail(str(error))
    except OSError as error:
        if (sentence := cannot_write(error)) is None:
            raise
        fail(sentence)
