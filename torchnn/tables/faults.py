"""What is wrong with a table, in one sentence."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TableError(ValueError):
    """A table that cannot be used; the message is one sentence that names file, row and column, and the mend."""


def quoted(names: Iterable[object], most: int = 5) -> str:
    """Names in quotes, the first few of them.

    >>> quoted(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    listed = [repr(str(name)) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def close_to(wrong: str, known: Iterable[str]) -> str:
    """A question after the nearest known name, or the first of the known names.

    >>> close_to("agee", ["age", "job"])
    "did you mean 'age'?"
    """
    known = list(known)
    nearest = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"the columns are {quoted(known)}."


def check_width(num_columns: int, path: Path, max_columns: int) -> None:
    """Refuse a table that is too wide to be read by accident."""
    if num_columns > max_columns:
        raise TableError(
            f"{path} has {num_columns:,} columns, more than --data.max_columns {max_columns:,}: raise it, or write a "
            "file with fewer columns."
        )


def check_names(names: Sequence[str], path: Path | str) -> None:
    """Refuse column names that are blank or occur twice."""
    first: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise TableError(f"{path}, column {position} has a blank name: give each column a name.")
        if name in first:
            raise TableError(
                f"{path} has two columns named {name!r}, the {first[name]}. and the {position}.: rename one."
            )
        first[name] = position
