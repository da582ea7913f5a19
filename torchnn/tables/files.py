"""Find the files of a table and read them: text, Parquet, Arrow and Feather; files, folders and globs."""

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from torchnn.tables.errors import TableError, cannot_read, check_names, check_width, corrupt_file, quote
from torchnn.tables.raw import RawTable, SourceFile, check_same_columns, columns_of_mixed_type, concatenate
from torchnn.tables.text import TextOptions, read_text

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".arrow", ".feather", ".ipc")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".brotli")
ARROW_FILE, ARROW_STREAM, PARQUET = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"
UNSUPPORTED = {  # first bytes of other formats, what they are and what to do
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file: save it as CSV",
    b"FEA1": "a Feather file of version 1: write it again as version 2",
    b"ORC": "an ORC file: write it as Parquet",
    b"\x89PNG": "an image: use a table",
    b"%PDF": "a PDF: use a table",
    b"SQLite": "a database: write its table as CSV or Parquet",
}
UNSUPPORTED_SUFFIXES = (
    *(".json", ".jsonl", ".html", ".xml", ".pkl", ".h5", ".npy", ".npz", ".dta", ".sav", ".sas7bdat", ".rds"),
)


def find_files(paths: str | os.PathLike[str] | Sequence[str]) -> list[Path]:
    """The files that paths, folders and globs stand for, in the order of their names.

    Args:
        paths: a path, folder or glob, or a list of them.

    Raises:
        TableError: a path does not exist, or a folder has no tables.
    """
    wanted = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = []
    for path in [os.fspath(path) for path in wanted]:
        try:
            found += _files_of(path) if path else []
        except OSError as error:
            raise cannot_read(quote(path), error) from error
    if not found:
        raise TableError("no file is given: give the path of a table.")
    return found


def _files_of(wanted: str) -> list[Path]:
    path = Path(wanted).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and has_table_name(file))
        if not files:
            raise TableError(
                f"{wanted} is a folder without tables: use a file, or a folder with files that end in "
                f"{', '.join(SUFFIXES)}."
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
        raise TableError(f"{wanted} matches no file: change the pattern.")
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    similar = [name for name in siblings if name.startswith(path.stem) and has_table_name(Path(name))]
    raise TableError(
        f"{wanted} does not exist: " + (f"did you mean {similar[0]}?" if similar else "give the path of a table.")
    )


def has_table_name(path: Path) -> bool:
    """Whether the name of a file is that of a table; hidden files do not count.

    >>> has_table_name(Path("a.csv.gz")), has_table_name(Path("notes.md"))
    (True, False)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not path.name.startswith((".", "_"))


def read_files(paths: Sequence[Path], options: TextOptions, max_columns: int) -> RawTable:
    """All rows of some files, concatenated.

    Args:
        paths: files with the same columns.
        options: how text is read.
        max_columns: a file with more columns is refused before it is read.

    Raises:
        TableError: a file cannot be read, has no rows, changes meanwhile, or has other columns than the first one.
    """
    check_distinct(paths)
    tables, sources, texts = [], [], []
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        before = file_state(path)
        table, rows_are_lines, is_text, content = _read_file(path, options, max_columns)
        if file_state(path) != before:
            raise TableError(f"{path} changed while it was being read: wait until it is complete, then start again.")
        if table.num_rows == 0:
            raise TableError(f"{path} has a header but no rows: use a table with data.")
        digest.update(content)
        tables.append(table)
        sources.append(SourceFile(path, table.num_rows, rows_are_lines))
        texts.append(is_text)
    check_same_columns([table.column_names for table in tables], paths)
    mixed = columns_of_mixed_type(tables)
    if mixed and all(texts) and not set(mixed) <= set(options.as_text):
        # Numbers in one file and words in another: read all as words, so that the kind is found for all files at once.
        return read_files(paths, replace(options, as_text=(*options.as_text, *mixed)), max_columns)
    return RawTable(
        data=concatenate(tables, paths),
        sources=tuple(sources),
        from_text=all(texts),
        fingerprint=digest.hexdigest(),
    )


def check_distinct(paths: Sequence[Path]) -> None:
    """Refuse a file that is given twice, because its rows would both train and test the model."""
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise TableError(f"{path} is given twice: give each file once.")
        seen.add(path.resolve())


def file_state(path: Path) -> tuple[int, int, int]:
    """Inode, size in bytes and time of change of a file, which differ if the file has changed.

    Raises:
        TableError: the file cannot be read.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from error
    return state.st_ino, state.st_size, state.st_mtime_ns


def first_bytes(path: Path, count: int = 8) -> bytes:
    """The first bytes of a file.

    Raises:
        TableError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise cannot_read(path, error) from error


def _read_file(path: Path, options: TextOptions, max_columns: int) -> tuple[pa.Table, bool, bool, bytes]:
    """The table, whether rows are lines, whether it is text, and bytes to compute a fingerprint from."""
    start = first_bytes(path)
    suffix = path.suffix.lower()
    for magic, what in UNSUPPORTED.items():
        if start.startswith(magic):
            raise TableError(f"{path} is {what}.")
    if suffix in UNSUPPORTED_SUFFIXES:
        raise TableError(f"{path} is a {suffix} file, which is not supported: save it as CSV or Parquet.")
    if start.startswith((PARQUET, ARROW_FILE, ARROW_STREAM)):
        table = _read_binary(path, start, max_columns)
        check_names(table.column_names, path)
        return table, False, False, file_digest(path)
    if suffix in (".parquet", ".pq", ".arrow", ".feather", ".ipc") and start:
        raise TableError(f"{path} has the name of a {suffix} file but is not one, or is corrupt: write it again.")
    table, rows_are_lines, content = read_text(path, options, max_columns)
    return table, rows_are_lines, True, content


def _read_binary(path: Path, start: bytes, max_columns: int) -> pa.Table:
    kind = "Parquet" if start.startswith(PARQUET) else "Arrow"
    try:
        if kind == "Parquet":
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                check_width(len(file.schema_arrow.names), path, max_columns)
                return _validated(file.read())
        with pa.OSFile(str(path)) as source:  # not a memory map, which would change with the file
            opened = ipc.open_file(source) if start.startswith(ARROW_FILE) else ipc.open_stream(source)
            check_width(len(opened.schema.names), path, max_columns)
            return _validated(opened.read_all())
    except TableError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise corrupt_file(path, kind, error) from error


def _validated(table: pa.Table) -> pa.Table:
    """The table, if its layout is consistent: Arrow trusts the file, and would read beyond its own memory."""
    table.validate(full=True)
    return table


def file_digest(path: Path) -> bytes:
    """A hash of the contents of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
