"""What becomes of each flag of `torchnn fit --ckpt_path`: none is silenced by what the checkpoint holds.

Hyper-parameters of model and data are settled by the checkpoint, as are the settings in SETTLED: another value is
refused. Those in FOLLOWED are the checkpoint's unless given, and then apply. What was code, or a place to write to, in
the run that goes on is never taken from a file: it has to be given again (AGAIN). The rest (FREE) belongs to each call.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from torchnn.model.checkpoint import CheckpointError
from torchnn.runs.resume import SECTION

SETTLED = {
    "seed_everything",
    *(f"trainer.limit_{stage}_batches" for stage in ("train", "val")),
    *("trainer.overfit_batches", "trainer.accumulate_grad_batches", "trainer.precision"),
    *("trainer.val_check_interval", "trainer.check_val_every_n_epoch", "trainer.reload_dataloaders_every_n_epochs"),
    *("early_stopping.monitor", "early_stopping.mode"),
    *("checkpoint.monitor", "checkpoint.mode", "checkpoint.save_top_k"),
    *("checkpoint.every_n_train_steps", "checkpoint.train_time_interval", "checkpoint.every_n_epochs"),
}
FOLLOWED = {
    *("trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.min_steps", "trainer.max_time"),
    *("trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.num_nodes"),
    *("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.deterministic", "trainer.benchmark"),
    *("trainer.detect_anomaly", "trainer.inference_mode", "trainer.use_distributed_sampler"),
    *("trainer.sync_batchnorm", "trainer.enable_checkpointing", "trainer.log_every_n_steps"),
    *("early_stopping.patience", "early_stopping.min_delta", "early_stopping.stopping_threshold"),
    *("early_stopping.divergence_threshold", "early_stopping.check_finite", "early_stopping.strict"),
    *("early_stopping.verbose", "early_stopping.log_rank_zero_only", "early_stopping.check_on_train_epoch_end"),
    *("checkpoint.verbose", "checkpoint.save_last", "checkpoint.save_on_exception", "checkpoint.save_weights_only"),
    *("checkpoint.auto_insert_metric_name", "checkpoint.save_on_train_epoch_end"),
    *("checkpoint.enable_version_counter", "last.every_seconds", "last.every_steps"),
}
AGAIN = {"trainer.callbacks", "trainer.plugins", "checkpoint.dirpath", "checkpoint.filename"}
FREE = {
    *("trainer.logger", "trainer.profiler", "trainer.default_root_dir", "trainer.model_registry"),
    *("trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.num_sanity_val_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.enable_autolog_hparams"),
    *("trainer.fast_dev_run", "trainer.barebones"),
}
HARMLESS_TEXT = re.compile(r"[\w :,-]*|[\d:., ]*")  # no dotted name, which could be that of a class


# Of a trained model, without making it another one.
MAY_CHANGE = frozenset({"model.threshold", "data.batch_size", "data.part"})
# What another table than that of the training may be read by.
OF_ANOTHER_TABLE = frozenset(
    {
        *("data.path", "data.part", "data.id_column", "data.weight_column", "data.delimiter", "data.decimal"),
        *("data.encoding", "data.time_format", "data.max_columns", "data.stream"),
    }
)
DATA_DECIDES = {"num_features": "in_features", "plain_schema": "schema"}  # hyper-parameters that no flag sets


def hyper_parameters(
    checkpoint: Mapping[str, Any], path: Path, config: Any, given: Iterable[str], may_change: Set[str] = frozenset()
) -> Iterator[tuple[str, str, Any]]:
    """Group, name and value of the hyper-parameters that model and data take from a checkpoint.

    Args:
        checkpoint: its contents.
        path: its file, for messages.
        config: the arguments of this call.
        given: the flags that this call gives.
        may_change: those of them that may differ.

    Raises:
        CheckpointError: a flag that may not differ does.
    """
    for group, saved in (("model", "hyper_parameters"), ("data", "datamodule_hyper_parameters")):
        for name, trained in checkpoint.get(saved, {}).items():
            if name in DATA_DECIDES.values() or name not in config[group]:
                continue
            flag, value = f"{group}.{name}", config[group][name]
            if flag in given and plain(value) != plain(trained):
                if flag in may_change:
                    continue
                raise CheckpointError(
                    f"--{flag} {value} contradicts the checkpoint {path}, which has {trained}: leave it out."
                )
            yield group, name, trained


def plain(value: Any) -> Any:
    """A tuple as the list that a file would hold; anything else as it is."""
    return list(value) if isinstance(value, tuple) else value


def settings_of(config: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """The plain settings of a run, by flag, and which of its flags have to be given again.

    Args:
        config: the arguments of `torchnn fit` as plain values.
        given: the flags that were given.
    """
    settings = {name: value for name, value in flat(config) if name in SETTLED | FOLLOWED and is_plain(value)}
    not_plain = ((SETTLED | FOLLOWED | AGAIN) - settings.keys()) & set(given)
    again = {name: str(value) for name, value in flat(config) if name in not_plain and value is not None}
    return {"values": settings, "again": again}


def flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of each flag of a nested configuration of two levels."""
    for group, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{group}.{name}", inner) for name, inner in value.items())
        else:
            yield group, value


def is_plain(value: Any) -> bool:
    """Whether a value can be taken from a file: no name of a class, however nested."""
    if isinstance(value, dict):  # the time limit, by unit
        return all(isinstance(k, str) and k.isalpha() and isinstance(v, int) for k, v in value.items())
    if isinstance(value, list):  # the numbers of devices
        return all(isinstance(item, int) for item in value)
    return value is None or isinstance(value, int | float) or bool(HARMLESS_TEXT.fullmatch(str(value)))


def resumed_settings(
    checkpoint: Mapping[str, Any], path: Path, given: Mapping[str, Any], used: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that a resumed run takes from its checkpoint, by flag.

    Args:
        checkpoint: its contents.
        path: its file, for messages.
        given: what flags and configuration files of this call say, by flag.
        used: given, completed by defaults.

    Raises:
        CheckpointError: a flag contradicts the checkpoint or is missing, or the checkpoint is not a safe one.
    """
    section = checkpoint.get(SECTION)
    if section is None:  # by a Trainer without `TrainingState`: there is nothing to follow
        return {}
    try:
        values, again = section["settings"]["values"], section["settings"]["again"]
        epochs = int(section["epochs"]) + (int(section["batches"]) > 0)
        unsafe = [name for name, value in values.items() if name not in SETTLED | FOLLOWED or not is_plain(value)]
        missing = {name: value for name, value in again.items() if given.get(name) is None}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} does not say how its run was set up: use another one.") from error
    if unsafe:
        raise CheckpointError(f"checkpoint {path} names code or an unknown setting in {unsafe[0]}: do not trust it.")
    for name, value in missing.items():
        raise CheckpointError(
            f"the run of {path} had --{name} {value}, which is never taken from a file: give it again."
        )
    for name in SETTLED & given.keys() & values.keys():
        if used[name] != values[name]:
            raise CheckpointError(
                f"--{name} {used[name]} contradicts the checkpoint {path}, whose run has {values[name]}: leave it out."
            )
    for name, reached in (("trainer.max_epochs", epochs), ("trainer.max_steps", checkpoint["global_step"])):
        limit = given.get(name)
        if limit is not None and limit != -1 and limit < reached:
            raise CheckpointError(
                f"--{name} {limit} is less than the {reached} that the checkpoint {path} has seen: give more."
            )
    return {name: value for name, value in values.items() if name not in given}
