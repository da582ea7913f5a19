"""What is wrong with a table, in one sentence."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TableError(ValueError):
    """A table that cannot be used; the message is one sentence that names file, row and column, and the mend."""


def short(value: object, most: int = 60) -> str:
    r"""A value in quotes on one line, the middle of a long one left out.

    >>> print(short("a\nb"), short("x" * 100, most=10))
    'a\nb' 'xxxxx…xxxxx'
    """
    text = str(value)
    return repr(text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}")


def first_line(error: object) -> str:
    r"""What another library says, without its further lines and its full stop.

    >>> first_line(ValueError("too long.\nsee there"))
    'too long'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(". ")


def quoted(names: Iterable[object], most: int = 5) -> str:
    """Names in quotes, the first few of them.

    >>> quoted(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(short(name) for name in listed[:most]) + more


def listed(flag: str, name: str) -> str:
    r"""A flag that takes a list, with one name.

    >>> listed("keep", "age")
    '--data.keep "[\'age\']"'
    """
    return f'--data.{flag} "[{short(name)}]"'


def typed(name: str) -> str:
    r"""The flag that makes a column a category.

    >>> typed("age"), typed("age in years")
    ('--data.types.age category', '--data.types "{\'age in years\': category}"')
    """
    return f"--data.types.{name} category" if name.isidentifier() else f'--data.types "{{{short(name)}: category}}"'


def close_to(wrong: str, known: Iterable[str]) -> str:
    """A question after the nearest known name, whatever its case, or the first of the known names.

    >>> close_to("Agee", ["age", "job"]), close_to("x", ["age", "job"])
    ("did you mean 'age'?", "the columns are 'age', 'job'.")
    """
    by_form = {name.strip().casefold(): name for name in known}
    nearest = difflib.get_close_matches(wrong.strip().casefold(), by_form, n=1)
    if nearest:
        return f"did you mean {short(by_form[nearest[0]])}?"
    only = "its only column is" if len(by_form) == 1 else "the columns are"
    return f"{only} {quoted(by_form.values())}."


def check_width(num_columns: int, path: Path, max_columns: int) -> None:
    """Refuse a table that is too wide to be read by accident."""
    if num_columns > max_columns:
        raise TableError(
            f"{path} has {num_columns:,} columns, more than --data.max_columns {max_columns:,}: raise it, or write a "
            "file with fewer columns."
        )


def check_names(names: Sequence[str], path: Path | str) -> None:
    """Refuse a table without columns, and column names that are blank or occur twice."""
    if not names:
        raise TableError(f"{path} has no columns: give a table with a header and rows.")
    first: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name.strip():
            index = "; if pandas wrote its index there, write the file again with index=False" if position == 1 else ""
            raise TableError(f"{path}, column {position} has a blank name: give each column a name{index}.")
        if name in first:
            raise TableError(f"{path}, columns {first[name]} and {position} are both named {short(name)}: rename one.")
        first[name] = position
