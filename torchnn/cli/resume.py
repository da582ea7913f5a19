"""Which settings a resumed run uses.

A resumed run uses the settings in its checkpoint. Only the flags in MAY_DIFFER may be given with another value, and
those in OF_EACH_CALL are not kept. Code and places to write to (CODE_OR_PLACE, and every value that is not plain) are
never taken from a checkpoint: such a flag has to be given again.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from torchnn.model.checkpoint import CheckpointError
from torchnn.runs.resume import SECTION

MAY_DIFFER = {
    # limits of training
    *("trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.min_steps", "trainer.max_time"),
    *("early_stopping.patience", "early_stopping.min_delta"),
    *("early_stopping.stopping_threshold", "early_stopping.divergence_threshold"),
    # where it runs
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    # how often last.ckpt is written
    *("last.every_seconds", "last.every_steps"),
}
OF_EACH_CALL = {
    *("config", "ckpt_path"),
    # what is shown, and where
    *("trainer.logger", "trainer.default_root_dir", "trainer.model_registry", "trainer.profiler"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.fast_dev_run"),
    # what only testing and predicting use
    *("trainer.limit_test_batches", "trainer.limit_predict_batches"),
}
CODE_OR_PLACE = {"trainer.callbacks", "trainer.plugins", "checkpoint.dirpath", "checkpoint.filename"}
HARMLESS_TEXT = re.compile(r"[\w :,-]*|[\d:., ]*")  # no dotted name, which could be that of a class

# Hyper-parameters that `torchnn validate`, `test` and `predict` may change of a trained model.
CHANGEABLE = frozenset({"model.threshold", "data.batch_size", "data.part"})
# Flags that say how a table is read that the model was not trained on.
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
    """Group, name and value of the hyper-parameters of model and data that come from a checkpoint.

    Args:
        checkpoint: its contents.
        path: its file, for messages.
        config: the arguments of this call.
        given: the flags that this call gives.
        may_change: the flags that may differ from the checkpoint.

    Raises:
        CheckpointError: another flag differs.
    """
    for group, saved in (("model", "hyper_parameters"), ("data", "datamodule_hyper_parameters")):
        for name, trained in checkpoint.get(saved, {}).items():
            if name in DATA_DECIDES.values() or name not in config[group]:
                continue
            flag, value = f"{group}.{name}", config[group][name]
            if flag in given and as_list(value) != as_list(trained):
                if flag in may_change:
                    continue
                raise contradiction(flag, value, path, trained)
            yield group, name, trained


def as_list(value: Any) -> Any:
    """A tuple as the list that a file would hold; anything else unchanged."""
    return list(value) if isinstance(value, tuple) else value


def contradiction(flag: str, value: Any, path: Path, trained: Any) -> CheckpointError:
    """The error for a flag whose value is not that of the checkpoint."""
    return CheckpointError(f"--{flag} {value} contradicts the checkpoint {path}, which has {trained}: leave it out.")


def settings_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of a run that its checkpoints hold.

    Args:
        config: the arguments of `torchnn fit` as plain values.

    Returns:
        `values`: what a resumed run takes over, by flag. `code`: the rest as text, only to be compared.
    """
    kept = [(flag, value) for flag, value in flat(config) if is_kept(flag)]
    values = {flag: value for flag, value in kept if flag not in CODE_OR_PLACE and is_plain(value)}
    return {"values": values, "code": {flag: str(value) for flag, value in kept if flag not in values}}


def is_kept(flag: str) -> bool:
    """Whether checkpoints hold a flag among the settings; model and data keep their own hyper-parameters."""
    return flag not in OF_EACH_CALL and not flag.startswith(("model.", "data."))


def flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of each flag of a nested configuration of two levels."""
    for group, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{group}.{name}", inner) for name, inner in value.items())
        else:
            yield group, value


def is_plain(value: Any) -> bool:
    """Whether a value can be taken from a file: it does not name a class, however nested."""
    if isinstance(value, dict):  # a time limit, by unit
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
        given: the values of the flags that this call gives, on the command line or in a file.
        used: the values of all flags, given or default, as plain values.

    Raises:
        CheckpointError: a flag contradicts the checkpoint or has to be given again, or the checkpoint is not safe.
    """
    section = checkpoint.get(SECTION)
    if section is None:  # the Trainer had no `TrainingState`, so there are no settings
        return {}
    try:
        settings = section["settings"]
        # Version 0.1 kept no defaults of code, and "again" had to be given in any form.
        is_complete = "code" in settings
        values, code = settings["values"], settings["code"] if is_complete else settings.get("again", {})
        epochs = int(section["epochs"]) + (int(section["batches"]) > 0)
        unsafe = [flag for flag, value in values.items() if not is_safe(flag, value)]
        code = {flag: str(text) for flag, text in code.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} does not say how its run was set up: use another one.") from error
    if unsafe:
        raise CheckpointError(f"checkpoint {path} names code or a place to write to in {unsafe[0]}: do not trust it.")
    for flag in sorted(filter(is_kept, given.keys() - MAY_DIFFER)):
        if flag in values and used[flag] != values[flag]:
            raise contradiction(flag, used[flag], path, values[flag])
        if flag not in values and is_complete and str(used[flag]) != code.get(flag):
            raise contradiction(flag, used[flag], path, code.get(flag))
    for flag, text in code.items():
        if given.get(flag) is None and text != str(used.get(flag)):
            raise CheckpointError(
                f"the run of {path} used --{flag} {text}, which is never taken from a checkpoint: give it again."
            )
    for flag, reached in (("trainer.max_epochs", epochs), ("trainer.max_steps", checkpoint["global_step"])):
        limit = given.get(flag)
        if limit is not None and limit != -1 and limit < reached:
            raise CheckpointError(
                f"--{flag} {limit} is less than the {reached} that checkpoint {path} has reached: give a larger number."
            )
    return {flag: value for flag, value in values.items() if flag in used and flag not in given}


def is_safe(flag: str, value: Any) -> bool:
    """Whether a value may be taken from a checkpoint."""
    return is_kept(flag) and flag not in CODE_OR_PLACE and is_plain(value)
