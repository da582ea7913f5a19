"""The arguments of the data module: checked before any file is opened, and grouped into records."""

from collections.abc import Mapping
from typing import Any

from torchnn.tables.roles import Roles
from torchnn.tables.schema import Schema
from torchnn.tables.split import Splitting
from torchnn.tables.table import EMBEDDED
from torchnn.tables.text import TextOptions, check_encoding

NAMES_OF_TAB = {"\\t": "\t", "tab": "\t"}  # a shell passes the backslash on


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for the first argument that is out of range; the message starts with its name."""
    if options["dataset"] not in EMBEDDED:
        raise ValueError(f"dataset is {options['dataset']!r}: use one of {', '.join(EMBEDDED)}.")
    for name in ("batch_size", "max_categories", "max_columns", "shuffle_rows"):
        if options[name] not in (None, "auto") and options[name] < 1:
            raise ValueError(f"{name} is {options[name]}: it must be 1 or more.")
    _check_text_options(options)
    _check_split_options(options)
    if not 0 <= options["seed"] < 2**32:
        raise ValueError(f"seed is {options['seed']}: it must be between 0 and 2**32 − 1.")


def _check_text_options(options: Mapping[str, Any]) -> None:
    delimiter = NAMES_OF_TAB.get(options["delimiter"], options["delimiter"])
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0'):
        raise ValueError(f"delimiter is {delimiter!r}: use one character, such as ; or tab.")
    if options["decimal"] not in (".", ","):
        raise ValueError(f"decimal is {options['decimal']!r}: use a point or a comma.")
    check_encoding(options["encoding"])


def _check_split_options(options: Mapping[str, Any]) -> None:
    split, column, folds, fold = (options[name] for name in ("split", "split_column", "folds", "fold"))
    for name in ("val_fraction", "test_fraction"):
        if not 0 < options[name] < 1:
            raise ValueError(f"{name} is {options[name]}: it must be between 0 and 1.")
    together = options["val_fraction"] + options["test_fraction"]
    if together >= 1 and not folds:
        raise ValueError(
            f"val_fraction + test_fraction is {together}, which leaves no rows for training: use smaller fractions."
        )
    if folds < 0 or folds == 1:
        raise ValueError(f"folds is {folds}: use 2 or more, or 0 for a single run.")
    if fold is not None and not 0 <= fold < folds:
        raise ValueError(f"fold is {fold}: folds are counted from 0, so it must be less than folds, which is {folds}.")
    if split != "random" and not column:
        raise ValueError(
            f"split is {split}, but split_column is missing: set it to the column with the {split} of each row."
        )
    if split == "random" and column:
        raise ValueError(f"split_column is {column!r}, but split is random: set split to time or group.")
    if split == "time" and folds:
        raise ValueError(
            "folds cannot be used with split time, because later rows would train a model that is tested on earlier "
            "ones: leave out one of the two options."
        )
    separate = [name for name in ("val_path", "test_path") if options[name] is not None]
    if separate and (folds or split != "random"):
        other = "folds" if folds else f"split {split}"
        raise ValueError(
            f"{separate[0]} cannot be used with {other}, because the files define the split: leave one of them out."
        )


def roles_from(options: Any) -> Roles:
    """What the columns are for."""
    return Roles(
        target=options.target,
        positive=options.positive,
        include=tuple(options.include or ()),
        exclude=tuple(options.exclude or ()),
        keep=tuple(options.keep or ()),
        types=dict(options.types or {}),
        id_column=options.id_column or "",
        weight_column=options.weight_column or "",
        missing=tuple(map(str, options.missing or ())),
        max_categories=options.max_categories,
    )


def splitting_from(options: Any) -> Splitting:
    """How the rows are split."""
    return Splitting(
        by=options.split,
        column=options.split_column or "",
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        folds=options.folds,
        fold=options.fold or 0,
        seed=options.seed,
    )


def text_options_from(options: Any, roles: Roles, trained: Schema | None) -> TextOptions:
    """How text is read: categories, of --data.types or of the model, stay text."""
    trained_categories = [] if trained is None else [c.name for c in trained.columns if c.kind == "category"]
    given_categories = [name for name, kind in roles.types.items() if kind == "category"]
    return TextOptions(
        delimiter=NAMES_OF_TAB.get(options.delimiter, options.delimiter),
        decimal=options.decimal,
        encoding=options.encoding,
        missing=roles.missing,
        time_format=options.time_format,
        as_text=(*given_categories, *trained_categories, roles.id_column),
        target=roles.target if trained is None else trained.target,
        ids=roles.id_column,
    )
