"""fit, validate, test and predict: Lightning's command line with `BinaryClassifier` and `TabularDataModule`."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from torchnn.cli.checkpoint import CheckpointCLI
from torchnn.cli.checks import REPORTED, check_model, folds_of, refuse_empty_runs, set_mode
from torchnn.cli.folds import FoldResult, cross_validate
from torchnn.cli.resume import DATA_DECIDES, settings_of
from torchnn.console import ERROR_FILE, INTERRUPTED, cannot_write, fail, note, one_sentence, options, with_flag
from torchnn.data.module import TabularDataModule
from torchnn.model.checkpoint import CheckpointError
from torchnn.model.classifier import BinaryClassifier
from torchnn.model.defaults import BEST_CHECKPOINT, EARLY_STOPPING, TRAINER
from torchnn.model.optimisers import ScheduleError
from torchnn.runs.callbacks import LearningCurve, StopOnNaN, TrainingDivergedError, last_checkpoint, run_folder
from torchnn.runs.launcher import launched, requeued_by_slurm
from torchnn.runs.predictions import PredictionError, PredictionFile
from torchnn.runs.rendezvous import make_process_group
from torchnn.runs.report import TestReport
from torchnn.runs.restart import names_of_job
from torchnn.runs.resume import EarlyStopping, TrainingState
from torchnn.runs.savers import AtomicCheckpointIO, BestCheckpoint, CheckpointWriteError, LastCheckpoint
from torchnn.tables import TableError

HARMLESS = (
    r".*smaller than the logging interval.*",  # nothing is logged by step, so a short epoch is harmless
    r".*dirpath has changed from.*",  # a later run never writes into the folder of an earlier one
    r".*callbacks used to create the checkpoint need.*",  # they are callbacks of training, and this is a test
    r".*could not find the monitored key.*",  # max_steps may end a run before its first validation
    r".*ReduceLROnPlateau conditioned on metric.*not available.*",  # the same
    r".*Checkpoint directory .* exists and is not empty.*",  # no file in it is replaced
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning calls torch by a deprecated name
)
ONE_SENTENCE = (
    *(CheckpointError, CheckpointWriteError, PredictionError, ScheduleError, TableError),
    *(TrainingDivergedError, MisconfigurationException),
)
DESCRIPTION = (
    "Train a classifier on a table and use it. Class names in arguments and in --config are run as your own code; "
    "checkpoints and tables cannot name any."
)
# What loading a training state raises if it does not fit the model or the trainer.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
DATA_ARGUMENTS = {"model", "dataloaders", "datamodule", "weights_only", "verbose", "return_predictions"}
NO_FLAGS = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
    "validate": DATA_ARGUMENTS,
    "test": DATA_ARGUMENTS,
    "predict": DATA_ARGUMENTS,
}


class TrainingParser(LightningArgumentParser):
    """Lightning's parser, without the usage before each error and without shortened flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        fail(one_sentence(message, options(parser)))


class TorchnnCLI(CheckpointCLI):
    """fit, validate, test and predict, with the defaults, the checks and the report of torchnn."""

    model: BinaryClassifier
    datamodule: TabularDataModule

    def __init__(self, words: list[str]) -> None:
        # Only the parser of the command that is called is built. A --config before it may be for any of them.
        self.called = [words[0]] if words[0] in NO_FLAGS else list(NO_FLAGS)
        super().__init__(
            BinaryClassifier,
            TabularDataModule,
            args=words,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=TrainingParser,
            parser_kwargs={"prog": "torchnn", "description": DESCRIPTION},
            trainer_defaults=dict(TRAINER),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is a static method
        """The subcommands, each with the arguments of the Trainer's method that do not become flags."""
        return {name: NO_FLAGS[name] for name in self.called}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.set_defaults(
            {
                **{f"early_stopping.{name}": value for name, value in EARLY_STOPPING.items()},
                **{f"checkpoint.{name}": value for name, value in BEST_CHECKPOINT.items()},
                "checkpoint.filename": "best-{epoch}",
            }
        )
        for source, target in DATA_DECIDES.items():
            parser.link_arguments(f"data.{source}", f"model.{target}", apply_on="instantiate")

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            fail(f"--seed_everything: {error}: give a whole number from 0 to 4294967295.")

    def before_instantiate_classes(self) -> None:
        """Refuse commands that would do nothing, and set whether each metric is better when high or low."""
        config = self.config[self.config.subcommand]
        output = config.get("output")
        try:
            self.prediction_file = PredictionFile(Path(output)) if output else None
        except ValueError as error:
            fail(f"--output {error}")
        refuse_empty_runs(config, self.config.subcommand)
        for group in ("early_stopping", "checkpoint"):
            set_mode(config, group, self.given)
        self.folds = folds_of(config, self.config.subcommand, self.given)
        if self.checkpoint is None:
            check_model(config.model.as_dict(), options(self._parser(self.config.subcommand)))

    def instantiate_classes(self) -> None:
        if self.folds:
            return  # the run of each fold instantiates its own
        try:
            super().instantiate_classes()
        except MisconfigurationException as error:
            fail(f"the Trainer rejects its arguments: {error}")
        except ValueError as error:
            fail(with_flag(str(error), options(self._parser(self.config.subcommand))))
        if self.checkpoint is not None:
            self._check_same_table()
        if self.subcommand in ("validate", "test"):
            self.datamodule.open_target()  # an error must come before the run folder is created

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        kwargs |= {
            name: value for name, value in launched().items() if self.given.get(f"trainer.{name}") in (None, "auto")
        }
        on_terminal = sys.stdout.isatty()
        for quiet_when_piped in ("enable_progress_bar", "enable_model_summary"):
            if config[quiet_when_piped] is None:
                kwargs[quiet_when_piped] = on_terminal
        settings: dict[str, Any] = {}
        if self.subcommand == "fit":
            settings = settings_of(self._plain_config()) | {"job": names_of_job()}
        self.training_state = TrainingState(settings)
        callbacks = [StopOnNaN(), LearningCurve(), TestReport(), self.training_state]
        if self.prediction_file is not None:
            config.logger = False  # only the file was asked for
        if config.logger is False:
            if self.subcommand == "predict" and self.prediction_file is None:
                fail("--trainer.logger false leaves predict without a run folder: give --output.")
            self.save_config_callback = None  # without a run folder it would write into the working folder
        elif not config.fast_dev_run:
            callbacks.append(LearningRateMonitor(logging_interval="epoch"))
        if config.logger in (None, True):
            kwargs["logger"] = CSVLogger(config.default_root_dir or ".", name="lightning_logs")
        self.trainer_defaults["callbacks"] = callbacks
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # otherwise it is a plugin of the user
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        make_process_group(trainer.strategy)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> pl.Trainer:
        if config["enable_checkpointing"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        return super()._instantiate_trainer(config, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        if self.folds:
            cross_validate(self.words, self.folds, run_of_a_fold)
            return
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:
                fail(self._after_interruption(), status=INTERRUPTED)
            raise

    def _after_interruption(self) -> str:
        """A sentence that says where a command was interrupted and how to continue."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            if self.subcommand == "fit":
                return "interrupted after training; torchnn test measures the trained model."
            return f"interrupted; start torchnn {self.subcommand} again."
        saved = last_checkpoint(self.trainer)
        advice = f"continue with torchnn fit --ckpt_path {saved}" if saved else "no checkpoint had been saved"
        return f"interrupted in epoch {self.trainer.current_epoch}; {advice}."

    def fit(self, ckpt_path: str | None, **kwargs: Any) -> None:
        """Train, then test the best checkpoint on the held-out rows."""
        try:
            self.trainer.fit(**kwargs, ckpt_path=ckpt_path, weights_only=True)
        except UNREADABLE as error:
            if ckpt_path is None or self.training_state.started:
                raise
            raise CheckpointError(f"checkpoint {ckpt_path} cannot be continued: {error}") from error
        if ckpt_path is not None and not self.training_state.started and self.trainer.is_global_zero:
            sys.stderr.write("torchnn: nothing is left to train: give a higher --trainer.max_epochs to continue\n")
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
        data = self.datamodule
        if data.roles.target and not data.evaluates_all and "data.part" not in self.given:
            held_out, rows = data.source.num_rows["test"], data.source.num_rows["all"]
            note(f"predict uses only the {held_out:,} held-out rows of {rows:,}: set --data.part all to use all rows.")
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

    def reported(self, stage: str) -> dict[str, float]:
        """The metrics of a stage that are printed."""
        return {name: float(self.trainer.callback_metrics[f"{stage}_{name}"]) for name in REPORTED}

    def _report(self, stage: str) -> None:
        if not self.trainer.is_global_zero:
            return
        if self._get(self.config, "trainer").fast_dev_run:
            print("dry run: every stage ran on one batch, nothing was kept")
            return
        folder = run_folder(self.trainer)
        lines = [f"{name} {value:.4f}" for name, value in self.reported(stage).items()]
        lines += [] if folder is None else [f"run {folder}"]
        print(*lines, sep=" " if self.is_a_fold else "\n")

    @property
    def is_a_fold(self) -> bool:
        """Whether this run is one of a cross-validation."""
        return self.subcommand == "fit" and self._get(self.config, "data").fold is not None


def run_of_a_fold(words: list[str]) -> FoldResult:
    """Carry out a command that trains, and return its result."""
    done = TorchnnCLI(words)
    return FoldResult(done.reported("test"), run_folder(done.trainer))


def main(words: Sequence[str]) -> None:
    """Run fit, validate, test or predict.

    Args:
        words: the words after `torchnn`, starting with the name of the command.

    Raises:
        SystemExit: with status 2 after wrong input, 130 after an interruption.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    run: Callable[[list[str]], Any] = TorchnnCLI
    if ERROR_FILE in os.environ:  # where torchrun expects the traceback of an unforeseen error
        from torch.distributed.elastic.multiprocessing.errors import record

        run = record(TorchnnCLI)
    try:
        with requeued_by_slurm():
            run(list(words))
    except ONE_SENTENCE as error:
        fail(str(error))
    except OSError as error:
        if (sentence := cannot_write(error)) is None:
            raise
        fail(sentence)
