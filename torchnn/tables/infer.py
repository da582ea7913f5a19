"""What kind of values a column holds, as far as its type or its words tell."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.columns import KINDS
from torchnn.tables.faults import TableError, close_to, listed, short, typed
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import NUMBER, as_text, kind_of_type, row_of, times_of_words

# With a comma, gaps between thousands, another minus, a currency or a percent sign: a number to people only.
GAP = r"[ .,'’_\x{00A0}\x{2009}\x{202F}]"
WRITTEN_NUMBER = rf"^[+−-]?[$€£¥]? ?(\d{{1,3}}({GAP}\d{{3}})+|\d+)([.,]\d+)? ?[%€]?$"
ISO_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}(:\d{2}(:\d{2}([.]\d{1,9})?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
MOSTLY = 0.9  # of the values that differ: above this, the other ones are mistakes and not categories
ENOUGH = 10  # values that differ; of fewer, one that is different may well be a category


def kinds_of(raw: RawTable, names: list[str], given: Mapping[str, str], missing: tuple[str, ...]) -> dict[str, str]:
    """The kind of each column, "" for one of a type that no network takes.

    Args:
        raw: the table.
        names: its columns to look at.
        given: kinds that are prescribed, by column.
        missing: words that stand for a missing value.

    Raises:
        TableError: an unknown column or kind in `given`; numbers or times that are not written as such.
    """
    for name, kind in given.items():
        if name not in raw.data.column_names:
            raise TableError(
                f"--data.types names {short(name)}, which {raw.name} has not: {close_to(name, raw.data.column_names)}"
            )
        if kind not in KINDS:
            raise TableError(f"--data.types.{name} is {kind!r}: choose one of {', '.join(KINDS)}.")
    return {name: given.get(name) or _kind(raw, name, missing) for name in names}


def _kind(raw: RawTable, name: str, missing: tuple[str, ...]) -> str:
    by_type = kind_of_type(raw.data.schema.field(name).type)
    if by_type == "category" and raw.from_text:
        return _kind_of_text(raw, name, missing)
    return by_type


def _kind_of_text(raw: RawTable, name: str, missing: tuple[str, ...]) -> str:
    """Category, unless the words are numbers, times or booleans; refused if they nearly are numbers or times."""
    words = as_text(raw.data[name], missing)
    distinct = pc.drop_null(pc.unique(words))
    if len(distinct) == 0:
        return "number"
    if pc.all(pc.is_in(pc.utf8_lower(distinct), pa.array(["true", "false"]))).as_py():
        return "boolean"
    plain = pc.match_substring_regex(distinct, NUMBER)
    if pc.all(plain).as_py():
        return "number"
    if _are_mostly(pc.or_(plain, pc.match_substring_regex(distinct, WRITTEN_NUMBER))):
        raise _no_number(raw, name, words, distinct.filter(pc.invert(plain))[0].as_py())
    dated = pc.match_substring_regex(distinct, ISO_TIME)
    if _are_mostly(dated):
        others = distinct.filter(pc.invert(dated))
        wrong = others[0].as_py() if len(others) else times_of_words(distinct)[1]
        if wrong is None:
            return "time"
        raise TableError(
            f"{raw.where(row_of(words, wrong))}, column {short(name)}: {short(wrong)} is no time like the others: "
            f"correct it, or give {_missing_flag(wrong)}, or {typed(name)}."
        )
    return "category"


def _are_mostly(fitting: pa.Array) -> bool:
    """Whether all values that differ are of a form, or so many that the others must be mistakes."""
    share = pc.mean(pc.cast(fitting, pa.float64())).as_py()
    return bool(share == 1 or (share >= MOSTLY and len(fitting) > ENOUGH))


def _no_number(raw: RawTable, name: str, words: pa.ChunkedArray, value: str) -> TableError:
    mend = "correct it"
    if pc.match_substring_regex(pa.scalar(value), WRITTEN_NUMBER).as_py():
        mend = "write numbers as 1234.5"
        if value.count(",") == 1:
            mend += ", or give --data.decimal , if the comma is the decimal mark"
    return TableError(
        f"{raw.where(row_of(words, value))}, column {short(name)}: {short(value)} is no number: {mend}, or give "
        f"{_missing_flag(value)}, or {typed(name)}."
    )


def _missing_flag(value: str) -> str:
    return f"{listed('missing', value)} if it stands for a missing value"
