"""The arguments of the data module, checked before any file is opened."""

from collections.abc import Mapping
from typing import Any

from torchnn.tables.content import check_encoding
from torchnn.tables.embedded import EMBEDDED

TAB_IN_WORDS = {"\\t": "\t", "tab": "\t"}  # a shell hands on the backslash


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first argument that is out of range."""
    if options["dataset"] not in EMBEDDED:
        raise ValueError(f"dataset is {options['dataset']!r}: choose one of {', '.join(EMBEDDED)}.")
    for name in ("batch_size", "max_categories", "max_columns", "shuffle_rows"):
        if options[name] not in (None, "auto") and options[name] < 1:
            raise ValueError(f"{name} is {options[name]}: it is 1 or more.")
    check_text(options)
    for name in ("val_fraction", "test_fraction"):
        if not 0 < options[name] < 1:
            raise ValueError(f"{name} is {options[name]}: it lies between 0 and 1.")
    together = options["val_fraction"] + options["test_fraction"]
    if together >= 1 and not options["folds"]:
        raise ValueError(f"val_fraction + test_fraction is {together}: nothing is left to train.")
    if not 0 <= options["seed"] < 2**32:
        raise ValueError(f"seed is {options['seed']}: it lies between 0 and 2**32 − 1.")
    if options["folds"] < 0 or options["folds"] == 1:
        raise ValueError(f"folds is {options['folds']}: give 2 or more, or 0 for a single run.")
    if options["fold"] is not None and not 0 <= options["fold"] < options["folds"]:
        raise ValueError(f"fold is {options['fold']}: it is counted from 0 and below folds, {options['folds']}.")
    if options["split"] != "random" and not options["split_column"]:
        raise ValueError(f"split is {options['split']}: give split_column, the {options['split']} of each row.")
    if options["split"] == "random" and options["split_column"]:
        raise ValueError(
            f"split_column is {options['split_column']!r}, but split is random: set split to time or group."
        )
    if options["split"] == "time" and options["folds"]:
        raise ValueError("folds does not go with split time: a later part would train an earlier one.")
    separate = [name for name in ("val_path", "test_path") if options[name] is not None]
    if separate and (options["folds"] or options["split"] != "random"):
        raise ValueError(f"{separate[0]} does not go with folds or split {options['split']}: the files are the split.")


def check_text(options: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first option of text that is out of range."""
    delimiter = TAB_IN_WORDS.get(options["delimiter"], options["delimiter"])
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0'):
        raise ValueError(f"delimiter is {delimiter!r}: give one character, such as ; or tab.")
    if options["decimal"] not in (".", ","):
        raise ValueError(f"decimal is {options['decimal']!r}: give a point or a comma.")
    check_encoding(options["encoding"])
