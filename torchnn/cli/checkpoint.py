"""Lightning's command line, extended by what a checkpoint decides."""

import os
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from torchnn.cli.resume import CHANGEABLE, OF_ANOTHER_TABLE, flat, hyper_parameters, resumed_settings
from torchnn.console import note
from torchnn.data.module import TabularDataModule
from torchnn.model.checkpoint import CheckpointError
from torchnn.runs.checkpoints import find_checkpoint, read_checkpoint, table_options
from torchnn.runs.launcher import refuse_other_sizes
from torchnn.runs.restart import is_restarted, last_of_job, names_of_job


class CheckpointCLI(LightningCLI):
    """Reads --ckpt_path before anything is instantiated, and takes from it what this call does not give."""

    datamodule: TabularDataModule
    found: str | None = None  # a note about a checkpoint that was found by itself

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        given = parser.parse_args(args, defaults=False)[self.config.subcommand]
        self.given = dict(flat(given.as_dict()))
        self.words = list(args)

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint, refuse a file that is not safe or does not fit, and take its hyper-parameters."""
        refuse_other_sizes(self.given)
        self.checkpoint: dict[str, Any] | None = None
        path = self._find_checkpoint()
        if path is not None:
            self._take_checkpoint(path)
        if self.found is not None:
            note(self.found)

    def _take_checkpoint(self, path: Path) -> None:
        subcommand = self.config.subcommand
        config = self.config[subcommand]
        self.checkpoint = read_checkpoint(path, to_continue=subcommand == "fit")
        table_options(self.checkpoint, path)  # refuses options that the data module does not take
        config.ckpt_path = str(path)
        another_table = self._is_another_table(config.data, path)
        may_change = frozenset() if subcommand == "fit" else CHANGEABLE
        if another_table:
            may_change |= OF_ANOTHER_TABLE
        for group, name, value in hyper_parameters(self.checkpoint, path, config, self.given, may_change):
            config[group][name] = value
        config.data.schema = self.checkpoint["hyper_parameters"].get("schema")
        if another_table and "data.part" not in self.given:
            config.data.part = "all"  # no row of it was trained on
        if subcommand == "fit":
            self._take_settings(self.checkpoint, path)
        if self.found is not None and config.data.fold is not None and "data.fold" not in self.given:
            self.found += f", the run of --data.fold {config.data.fold} only"

    def _find_checkpoint(self) -> Path | None:
        """The checkpoint that this call starts from, None for none; every process of a job finds the same one."""
        subcommand = self.config.subcommand
        config = self.config[subcommand]
        root = Path(config.trainer.default_root_dir or ".")
        trains_one_model = subcommand == "fit" and (config.data.folds < 2 or config.data.fold is not None)
        if trains_one_model and is_restarted():
            own = last_of_job(root, names_of_job(), config.data.fold)
            start = "starts again, since it had not written a checkpoint" if own is None else f"resumes from {own}"
            self.found = f"the launcher has restarted this job, which {start}"
            if own is not None:
                return own
        wanted = config.get("ckpt_path") or (None if subcommand == "fit" else "best")
        if wanted is None:
            return None
        path = find_checkpoint(wanted, root)
        if wanted != str(path):
            self.found = f"{subcommand} takes {path}"
        return path

    def _is_another_table(self, data: Any, path: Path) -> bool:
        """Whether this call names a table that the checkpoint was not trained on.

        Raises:
            CheckpointError: neither this call nor the checkpoint names a table.
        """
        assert self.checkpoint is not None
        trained_on = self.checkpoint.get("datamodule_hyper_parameters", {})
        if "data.path" in self.given and places(data.path) != places(trained_on.get("path")):
            return bool(self.config.subcommand != "fit")
        if "data.path" in self.given:
            data.path = trained_on["path"]
        if "path" not in trained_on:
            raise CheckpointError(f"{path} was trained on a table in memory: give --data.path.")
        return False

    def _take_settings(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Take the settings of the run in the checkpoint that this call does not give."""
        used = dict(flat(self._plain_config()))
        nested: dict[str, Any] = {}
        for name, value in resumed_settings(checkpoint, path, self.given, used).items():
            *groups, argument = name.split(".")
            (nested.setdefault(groups[0], {}) if groups else nested)[argument] = value
        self.config = self.parser.parse_object({"fit": nested}, self.config)

    def _plain_config(self) -> dict[str, Any]:
        """The arguments of this call as plain values, as a file would hold them."""
        text = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml")
        return dict(yaml.safe_load(text)[self.config.subcommand])

    def _check_same_table(self) -> None:
        """Refuse a table that has changed since the training, and a test on all rows of the training table."""
        assert self.checkpoint is not None
        trained = self.checkpoint.get("datamodule_hyper_parameters", {}).get("fingerprint")
        given = self.datamodule.hparams.get("fingerprint")
        if not self.datamodule.evaluates_all and trained != given:
            raise CheckpointError(
                f"{self.datamodule.hparams['path']} has changed since the checkpoint was trained on it, so the "
                "held-out rows are unknown: give --data.part all to use all rows, or the unchanged table."
            )
        measures = self.config.subcommand in ("validate", "test") and "data.part" not in self.given
        if measures and self.datamodule.evaluates_all and trained and trained == given:
            raise CheckpointError(
                f"{self.datamodule.hparams['path']} is the table that the checkpoint was trained on: give "
                "--data.part held_out to use the rows that were held out, or all to use all rows."
            )


def places(paths: Any) -> list[str]:
    """The absolute form of paths, however they are written; empty for anything that is not a path."""
    named = [paths] if isinstance(paths, str) else paths or []
    return [os.path.abspath(os.path.expanduser(path)) for path in named]
