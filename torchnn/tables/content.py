"""The bytes of a text file: decompressed, and in UTF-8."""

import codecs
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from torchnn.tables.faults import TableError, first_line

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BLOCK = 1 << 22  # bytes that are looked at, or converted, at a time


def unpacked(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is compressed.

    Raises:
        TableError: it cannot be read, or its compression is broken or cut off.
    """
    openers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda packed: _arrow_unpacked(packed, "gzip"),
        b"BZh": lambda packed: _arrow_unpacked(packed, "bz2"),
        b"\x28\xb5\x2f\xfd": lambda packed: _arrow_unpacked(packed, "zstd"),
        b"\x04\x22\x4d\x18": lambda packed: _arrow_unpacked(packed, "lz4"),
        b"\xfd7zXZ": lzma.decompress,
    }
    if path.suffix.lower() in (".br", ".brotli"):
        openers[b""] = lambda packed: _arrow_unpacked(packed, "brotli")
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}: give a file that can be read.") from error
    try:
        for magic, unpack in openers.items():
            if packed and packed.startswith(magic):
                return unpack(packed)
    except (OSError, EOFError, MemoryError, lzma.LZMAError, pa.ArrowException) as error:
        raise TableError(
            f"{path} is compressed, but cut off or broken ({first_line(error)}): copy or compress it again."
        ) from error
    return packed


def _arrow_unpacked(packed: bytes, codec: str) -> bytes:
    unpacked: bytes = pa.CompressedInputStream(pa.BufferReader(packed), codec).read()
    return unpacked


def check_encoding(encoding: str) -> None:
    """Raise ValueError unless text can be decoded by it."""
    try:
        b"  ".decode(encoding)  # two bytes: some codecs look at nothing where there is none
    except (LookupError, UnicodeError, ValueError) as error:
        raise ValueError(f"encoding is {encoding!r}: choose one such as utf-8, latin-1 or utf-16.") from error


def decoded(path: Path, content: bytes, encoding: str) -> bytes:
    """The contents in UTF-8 without a byte-order mark.

    Raises:
        TableError: bytes that the encoding does not have, with their line; or NUL bytes.
    """
    codec = codecs.lookup(encoding).name
    if codec == "utf-8":
        _check_utf8(path, content)
        text = content.removeprefix(codecs.BOM_UTF8)
    else:
        try:
            text = content.decode(encoding).removeprefix("\ufeff").encode()
        except UnicodeDecodeError as error:
            raise _no_text(path, content, error.start, codec) from error
        except UnicodeError as error:  # surrogates, which no text holds
            raise TableError(f"{path} is not encoded as {codec}: give another --data.encoding.") from error
    nul = text.find(b"\0")
    if nul >= 0:
        raise TableError(
            f"{path}, line {line_of(text, nul)} holds a NUL byte, which text does not: write the file again."
        )
    return text


def _check_utf8(path: Path, content: bytes) -> None:
    for mark, name in MARKS.items():
        if content.startswith(mark):
            raise TableError(f"{path} is encoded as {name}: give --data.encoding {name}, or save it as UTF-8.")
    for first, name in ((0, "utf-16-be"), (1, "utf-16-le")):
        start = content[:1000]
        if len(start) >= 4 and not any(start[first::2]) and all(start[1 - first :: 2]):
            raise TableError(f"{path} seems to be encoded as {name}: give --data.encoding {name}, or save it as UTF-8.")
    check = codecs.getincrementaldecoder("utf-8")()
    position = 0
    try:
        for position in range(0, len(content), BLOCK):
            pending = len(check.getstate()[0])
            check.decode(content[position : position + BLOCK])
        pending, position = len(check.getstate()[0]), len(content)
        check.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _no_text(path, content, position - pending + error.start, "utf-8") from error


def _no_text(path: Path, content: bytes, at: int, codec: str) -> TableError:
    return TableError(
        f"{path}, line {line_of(content, at)}: byte 0x{content[at]:02x} is not {codec}: "
        "save the file as UTF-8, or give its --data.encoding, such as latin-1."
    )


def line_of(content: bytes, position: int) -> int:
    """The line, counted from 1, of a byte."""
    return content.count(b"\n", 0, position) + 1
