"""Finding and reading checkpoints; nothing in a checkpoint is ever run as code."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from torchnn.data.module import TabularDataModule
from torchnn.model.checkpoint import CheckpointError, load_plain
from torchnn.model.classifier import BinaryClassifier
from torchnn.runs.callbacks import LAST, is_last


def find_checkpoint(wanted: str, root: Path) -> Path:
    """The path that `wanted` stands for.

    Args:
        wanted: "best" or "last" for a checkpoint of the newest run below `root`; anything else is a path.
        root: the folder that holds `lightning_logs`.

    Raises:
        CheckpointError: there is no such file.
    """
    if wanted not in ("best", "last"):
        path = Path(wanted)
        if path.is_file():
            return path
        wrong = "is a directory" if path.is_dir() else "does not exist"
        raise CheckpointError(f"--ckpt_path {wanted} {wrong}: give the path of a .ckpt file.")
    newest = next(iter(newest_first(root)), None)
    if newest is None:
        folder = root / "lightning_logs"
        raise CheckpointError(f"no run in {folder} has a checkpoint: train with torchnn fit, or give --ckpt_path.")
    return newest if wanted == "last" else _best_of_run(newest)


def newest_first(root: Path) -> list[Path]:
    """The `last.ckpt` of every run below a folder, the newest first."""
    found = [*root.glob(f"lightning_logs/version_*/checkpoints/{LAST}"), *root.glob("checkpoints/*.ckpt")]
    return sorted(filter(is_last, found), key=_age, reverse=True)


def _age(path: Path) -> tuple[int, int]:
    """A sort key: the time of writing, then the number of the run."""
    version = path.parent.parent.name.removeprefix("version_")
    return path.stat().st_mtime_ns, int(version) if version.isdigit() else -1


def _best_of_run(last: Path) -> Path:
    """The best checkpoint of the run that wrote `last`, as named by the newest checkpoint that names one.

    `last` can name a checkpoint that a better one has replaced since.
    """
    for path in sorted(last.parent.glob("*.ckpt"), key=_age, reverse=True):
        try:
            states = load_plain(path).get("callbacks", {}).values()
        except CheckpointError:
            continue
        names = [Path(state["best_model_path"]).name for state in states if state.get("best_model_path")]
        for best in map(last.with_name, names):
            if best.is_file() and not is_last(best):
                return best
    raise CheckpointError(f"the newest run, {last.parent.parent}, has no best checkpoint: give --ckpt_path.")


def read_checkpoint(path: Path, to_continue: bool = False) -> dict[str, Any]:
    """The contents of a checkpoint of `BinaryClassifier`, after checking that they fit the network they describe.

    Args:
        path: the file.
        to_continue: whether training resumes from it, which needs more than weights.

    Raises:
        CheckpointError: the file is not a checkpoint, is truncated, holds code, does not fit, or holds weights that are
            not finite.
    """
    checkpoint = load_plain(path)
    BinaryClassifier.from_checkpoint(checkpoint, path)
    if to_continue:
        check_training_state(checkpoint, path)
    return checkpoint


def table_options(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The arguments of the `TabularDataModule` that a model was trained with; empty for another data module.

    Raises:
        CheckpointError: that class does not take them.
    """
    options = checkpoint.get("datamodule_hyper_parameters", {})
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TabularDataModule)
    try:
        parser.parse_object({name: value for name, value in options.items() if name != "fingerprint"}, defaults=False)
    except (ArgumentError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        message = f"checkpoint {path} does not describe the table that it was trained on: {reason}"
        raise CheckpointError(message) from error
    return dict(options)


def check_training_state(checkpoint: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError unless a checkpoint has the parts that resuming needs, in the right form."""
    if not {"optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step"} <= checkpoint.keys():
        raise CheckpointError(f"checkpoint {path} holds weights only: it can be tested, but not trained further.")
    schedules = int(checkpoint["hyper_parameters"].get("lr_scheduler") is not None)
    for name, length in (("optimizer_states", 1), ("lr_schedulers", schedules)):
        states = checkpoint[name]
        if not (isinstance(states, list) and len(states) == length and all(isinstance(s, dict) for s in states)):
            raise CheckpointError(f"checkpoint {path} cannot be continued: its {name} are damaged.")
    callbacks = checkpoint["callbacks"]
    if not (isinstance(callbacks, dict) and all(isinstance(state, dict) for state in callbacks.values())):
        raise CheckpointError(f"checkpoint {path} cannot be continued: the states of its callbacks are damaged.")
