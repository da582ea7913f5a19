"""The error that a bad table raises, and the phrases that its messages share."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TableError(ValueError):
    """A table cannot be used. The message is one sentence that names file, row and column, and says what to change."""


def quote(value: object, most: int = 60) -> str:
    r"""A value in quotes on one line; the middle of a long value is left out.

    >>> print(quote("a\nb"), quote("x" * 100, most=10))
    'a\nb' 'xxxxx…xxxxx'
    """
    text = str(value)
    return repr(text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}")


def quote_all(names: Iterable[object], most: int = 5) -> str:
    """Names in quotes, the first few of them.

    >>> quote_all(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(quote(name) for name in known[:most]) + more


def first_line(error: object) -> str:
    r"""The first line of another library's message, without its full stop.

    >>> first_line(ValueError("too long.\nsee there"))
    'too long'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(". ")


def list_flag(flag: str, name: str) -> str:
    r"""A flag that takes a list, with one name.

    >>> list_flag("keep", "age")
    '--data.keep "[\'age\']"'
    """
    return f'--data.{flag} "[{quote(name)}]"'


def category_flag(name: str) -> str:
    r"""The flag that makes a column a category.

    >>> category_flag("age"), category_flag("age in years")
    ('--data.types.age category', '--data.types "{\'age in years\': category}"')
    """
    return f"--data.types.{name} category" if name.isidentifier() else f'--data.types "{{{quote(name)}: category}}"'


def suggest_column(wrong: str, known: Iterable[str]) -> str:
    """A question that suggests the most similar name, ignoring case; else the first of the known names.

    >>> suggest_column("Agee", ["age", "job"]), suggest_column("x", ["age", "job"])
    ("did you mean 'age'?", "the columns are 'age', 'job'.")
    """
    by_form = {name.strip().casefold(): name for name in known}
    nearest = difflib.get_close_matches(wrong.strip().casefold(), by_form, n=1)
    if nearest:
        return f"did you mean {quote(by_form[nearest[0]])}?"
    only = "its only column is" if len(by_form) == 1 else "the columns are"
    return f"{only} {quote_all(by_form.values())}."


def no_such_column(source: str, name: str, flag: str, known: Iterable[str]) -> TableError:
    """The error for a flag that names a column that the table does not have."""
    return TableError(f"{source} has no column {quote(name)} for --data.{flag}: {suggest_column(name, known)}")


def cannot_read(path: object, error: OSError) -> TableError:
    """The error for a file that the operating system refuses to open."""
    return TableError(f"{path} cannot be read ({error.strerror}): check its name and permissions.")


def corrupt_file(path: Path, kind: str, error: Exception) -> TableError:
    """The error for a Parquet or Arrow file that cannot be decoded."""
    return TableError(f"{path} is a corrupt {kind} file ({first_line(error)}): write it again.")


def check_width(num_columns: int, path: Path, max_columns: int) -> None:
    """Refuse a table that is too wide to be read by accident."""
    if num_columns > max_columns:
        raise TableError(
            f"{path} has {num_columns:,} columns, more than --data.max_columns {max_columns:,}: raise this limit, or "
            "write a file with fewer columns."
        )


def check_names(names: Sequence[str], path: Path | str) -> None:
    """Refuse a table without columns, and column names that are blank or occur twice."""
    if not names:
        raise TableError(f"{path} has no columns: use a table with a header and rows.")
    first: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name.strip():
            index = "; if pandas wrote its index there, write the file again with index=False" if position == 1 else ""
            raise TableError(f"{path}, column {position} has a blank name: give every column a name{index}.")
        if name in first:
            raise TableError(
                f"{path}, columns {first[name]} and {position} are both named {quote(name)}: rename one of them."
            )
        first[name] = position
