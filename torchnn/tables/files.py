"""From files to an Arrow table: CSV, TSV, compressed text, Parquet, Arrow and Feather; a folder or glob of them."""

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from torchnn.tables.faults import TableError, check_names, check_width, first_line, short
from torchnn.tables.joining import check_same_columns, joined, words_in_some
from torchnn.tables.text import TextOptions, read_text

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".arrow", ".feather", ".ipc")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".brotli")
ARROW_FILE, ARROW_STREAM, PARQUET = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"
FOREIGN = {  # how files begin that people take for tables
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file: save it as CSV",
    b"FEA1": "a Feather file of version 1: write it again as version 2",
    b"ORC": "an ORC file: write it as Parquet",
    b"\x89PNG": "a picture: give a table",
    b"%PDF": "a PDF: give a table",
    b"SQLite": "a database: write its table as CSV or Parquet",
}
FOREIGN_SUFFIXES = (
    ".json",
    ".jsonl",
    ".html",
    ".xml",
    ".pkl",
    ".h5",
    ".npy",
    ".npz",
    ".dta",
    ".sav",
    ".sas7bdat",
    ".rds",
)


@dataclass(frozen=True)
class Source:
    """A file of a table.

    Attributes:
        path: where it is.
        num_rows: rows in it, the header not counted.
        lines: whether row r stands on line r + 2, as in a text file without blank lines and line breaks in values.
    """

    path: Path
    num_rows: int
    lines: bool = False


@dataclass(frozen=True)
class RawTable:
    """Rows as they stand in the files, and where each came from.

    Attributes:
        data: the columns, as Arrow read them.
        sources: the files, in the order of their rows; none for a table that was in memory.
        from_text: whether types were inferred from text.
        fingerprint: of the contents of the files.
    """

    data: pa.Table
    sources: tuple[Source, ...] = ()
    from_text: bool = False
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """What to call the table in a sentence."""
        if not self.sources:
            return "the table"
        others = len(self.sources) - 1
        more = f" and {others} more file{'s' * (others > 1)}" if others else ""
        return f"{self.sources[0].path}{more}"

    def where(self, row: int) -> str:
        """File, row (counted from 0 as in predictions) and line of a row of the whole table."""
        for source in self.sources:
            if row < source.num_rows:
                return f"{source.path}, row {row} ({f'line {row + 2}' if source.lines else 'counted from 0'})"
            row -= source.num_rows
        return f"row {row} (counted from 0)"


def find_files(paths: str | os.PathLike[str] | Sequence[str]) -> list[Path]:
    """The files that paths, folders and globs stand for, in the order of their names.

    Args:
        paths: one of them, or a list.

    Raises:
        TableError: nothing is there, or a folder without tables.
    """
    wanted = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = []
    for path in [os.fspath(path) for path in wanted]:
        try:
            found += _files_of(path) if path else []
        except OSError as error:
            raise TableError(f"{short(path)}: {error.strerror}: give a file that can be read.") from error
    if not found:
        raise TableError("no file is named: give the path of a table.")
    return found


def _files_of(wanted: str) -> list[Path]:
    path = Path(wanted).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and is_table(file))
        if not files:
            raise TableError(
                f"{wanted} is a folder without a table: give a file, or a folder of {', '.join(SUFFIXES)}."
            )
        return files
    if path.is_file():
        return [path]
    if path.exists():
        raise TableError(f"{wanted} is a pipe or a device: write the table to a file first.")
    if glob.has_magic(wanted):
        files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if files:
            return files
        raise TableError(f"{wanted} matches no file: give a pattern that does.")
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = [name for name in beside if name.startswith(path.stem) and is_table(Path(name))]
    raise TableError(
        f"{wanted} does not exist: " + (f"did you mean {near[0]}?" if near else "give the path of a table.")
    )


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table; hidden files are none.

    >>> is_table(Path("a.csv.gz")), is_table(Path("notes.md"))
    (True, False)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not path.name.startswith((".", "_"))


def read_files(paths: Sequence[Path], options: TextOptions, max_columns: int) -> RawTable:
    """All rows of some files, one after the other.

    Args:
        paths: files, each with the same columns.
        options: how text is read.
        max_columns: more columns than these are refused before they are read.

    Raises:
        TableError: a file that cannot be read, holds no rows, changes meanwhile, or differs from the first one.
    """
    check_once(paths)
    tables, sources, texts = [], [], []
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        before = stamp(path)
        table, lines, is_text, content = _read(path, options, max_columns)
        if stamp(path) != before:
            raise TableError(f"{path} changed while it was read: wait until it is complete, then start again.")
        if table.num_rows == 0:
            raise TableError(f"{path} has no rows below its header: give a table with data.")
        digest.update(content)
        tables.append(table)
        sources.append(Source(path, table.num_rows, lines))
        texts.append(is_text)
    check_same_columns(tables, paths)
    mixed = words_in_some(tables)
    if mixed and all(texts) and not set(mixed) <= set(options.as_text):
        # What is a number in one file and a word in another: the words of all, so that the kind is found for all.
        return read_files(paths, replace(options, as_text=(*options.as_text, *mixed)), max_columns)
    return RawTable(joined(tables, paths), tuple(sources), all(texts), digest.hexdigest())


def check_once(paths: Sequence[Path]) -> None:
    """Refuse a file that is named twice: its rows would train the model and test it too."""
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise TableError(f"{path} is named twice: name each file once.")
        seen.add(path.resolve())


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does.

    Raises:
        TableError: the file is gone or cannot be looked at.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}: give a file that can be read.") from error
    return state.st_ino, state.st_size, state.st_mtime_ns


def first_bytes(path: Path, count: int = 8) -> bytes:
    """How a file begins.

    Raises:
        TableError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}: give a file that can be read.") from error


def _read(path: Path, options: TextOptions, max_columns: int) -> tuple[pa.Table, bool, bool, bytes]:
    """Table, whether rows are lines, whether it is text, and something that stands for the contents."""
    start = first_bytes(path)
    suffix = path.suffix.lower()
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise TableError(f"{path} is {what}.")
    if suffix in FOREIGN_SUFFIXES:
        raise TableError(f"{path} is a {suffix} file, which is not read: save it as CSV or Parquet.")
    if start.startswith((PARQUET, ARROW_FILE, ARROW_STREAM)):
        table = _read_binary(path, start, max_columns)
        check_names(table.column_names, path)
        return table, False, False, digest_of_file(path)
    if suffix in (".parquet", ".pq", ".arrow", ".feather", ".ipc") and start:
        raise TableError(f"{path} is no {suffix[1:]} file in spite of its name, or is broken: write it again.")
    table, lines, content = read_text(path, options, max_columns)
    return table, lines, True, content


def _read_binary(path: Path, start: bytes, max_columns: int) -> pa.Table:
    kind = "Parquet" if start.startswith(PARQUET) else "Arrow"
    try:
        if kind == "Parquet":
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                check_width(len(file.schema_arrow.names), path, max_columns)
                return _validated(file.read())
        with pa.OSFile(str(path)) as source:  # a memory map would go on changing with the file
            opened = ipc.open_file(source) if start.startswith(ARROW_FILE) else ipc.open_stream(source)
            check_width(len(opened.schema.names), path, max_columns)
            return _validated(opened.read_all())
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise TableError(f"{path} is a broken {kind} file ({first_line(error)}): write it again.") from error


def _validated(table: pa.Table) -> pa.Table:
    """Arrow trusts what a file says of its own layout, and reads beyond its memory where that is wrong."""
    table.validate(full=True)
    return table


def digest_of_file(path: Path) -> bytes:
    """What stands for the contents of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
