"""What a command says on standard error: one sentence for each mistake, without a traceback, and exit status 2."""

import argparse
import difflib
import errno
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

ONNX_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
INTERRUPTED = 130  # the exit status after Ctrl-C
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # in the environment: where torchrun expects the reason for a failure
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PIP_NAMES = {"sklearn": "scikit-learn", "yaml": "PyYAML"}  # packages that pip knows by another name
PLAIN_TYPES = {
    "NoneType": "null",
    "Sequence": "a list",
    "Mapping": "a dictionary",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "str": "a string",
}


def is_first_process() -> bool:
    """Whether this process is the first of those that a launcher has started, or the only one."""
    return name_of_process() in ("", "rank 0")


def name_of_process() -> str:
    """The name of this process in messages, from the environment that a launcher sets; "" if it is the only one."""
    env = os.environ
    for rank, world_size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in env:
            return f"rank {env[rank]}" if env.get(world_size) != "1" else ""
    if "LOCAL_RANK" not in env or env.get("WORLD_SIZE") == "1":  # which Lightning removes before an error is reported
        return ""
    node, local_rank = env.get("NODE_RANK", "0"), env["LOCAL_RANK"]
    return f"rank {local_rank}" if node == "0" else f"process {local_rank} of host {node}"


def note(sentence: str) -> None:
    """Print one sentence on standard error, in the first process only."""
    if is_first_process():
        sys.stderr.write(f"torchnn: {' '.join(sentence.split())}\n")


def fail(sentence: str, status: int = 2) -> NoReturn:
    """Print one sentence and exit; among several processes the sentence begins with the rank.

    The sentence is also written to the file where torchrun expects the reason for a failure.
    """
    sentence = ": ".join(filter(None, [name_of_process(), " ".join(sentence.split())]))
    sys.stderr.write(f"torchnn: {sentence}\n")
    if ERROR_FILE in os.environ:
        with suppress(OSError):
            Path(os.environ[ERROR_FILE]).write_text(json.dumps({"message": sentence, "timestamp": int(time.time())}))
    sys.exit(status)


class OneSentenceParser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one sentence and does not accept shortened flags."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        fail(one_sentence(message, options(self)))


class MissingPackageError(ImportError):
    """A package of an extra is not installed; the message is one sentence with the pip line."""


@contextmanager
def need(extra: str, user: str) -> Iterator[None]:
    """Turn the error of a missing package into one sentence with the pip line that installs it.

    Args:
        extra: the extra of torchnn that brings the package: train, explain or export.
        user: what needs it, as the sentence names it, such as "torchnn fit".

    Raises:
        MissingPackageError: a package that the body imports is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "torchnn"):
            raise
        package = PIP_NAMES.get(package, package)
        raise MissingPackageError(
            f"{user} needs {package}, which is not installed: pip install 'torchnn[{extra}]'.", name=error.name
        ) from error


@contextmanager
def logging_level(level: int, *loggers: str) -> Iterator[None]:
    """Hide the messages of these loggers below a level."""
    limited = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in limited]
    for logger in limited:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(limited, levels, strict=True):
            logger.setLevel(before)


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hide all warnings, and the messages of these loggers that are not critical."""
    with logging_level(logging.CRITICAL, *loggers), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cannot_write(error: OSError) -> str | None:
    """A sentence for a full disk or a folder that is not writable; None for any other error."""
    advice = "give a --trainer.default_root_dir that is writable."
    if error.errno in DISK_FULL:
        return f"{error.filename or 'the run folder'}: {error.strerror}: free some space, or {advice}"
    return None if error.filename is None else f"{error.filename}: {error.strerror}: {advice}"


def options(parser: Any) -> list[str]:
    """The flags of a parser."""
    return [option for action in parser._actions for option in action.option_strings]


def with_flag(message: str, known: list[str]) -> str:
    """The sentence with the flag in place of the argument's name that it begins with."""
    for group in ("model", "data"):
        if f"--{group}.{re.split(r'[^a-z_]', message)[0]}" in known:
            return f"--{group}.{message}"
    return message


def one_sentence(message: str, known: list[str]) -> str:
    """A parser's message as one sentence that names the argument, its value and what is allowed.

    Args:
        message: from argparse or jsonargparse.
        known: the flags of the parser, from which a mistyped one is suggested.
    """
    if unknown := re.search(r"^unrecognized arguments: ([^\s=]+)|does not accept option '(\S+)'", message.strip()):
        wrong = unknown[1] or f"--{unknown[2]}"
        close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.63)  # a flag of another group misleads
        return f"{wrong} is not an argument: {f'did you mean {close[0]}?' if close else 'see --help.'}"
    if incomplete := re.match(r"argument (?:-\w/)?(\S+): expected one argument", message):
        return f"{incomplete[1]} needs a value."
    if missing := re.search(r"File does not exist: '(.*?)'", message):
        return f"the file {missing[1]} does not exist."
    named = re.search(r'[Kk]ey "([^"]+)"', message)
    given = re.search(r"(?:Got value|Given value): (.*)", message)
    if named and given:
        return f"--{named[1]} is {given[1].strip()!r}: expected {allowed(message)}."
    return f"{' '.join(message.split()).removesuffix('.')}."


def allowed(message: str) -> str:
    """The types that a message of jsonargparse expects, in plain words."""
    expected = re.findall(r"Expected an? (.*?)(?:\. Got value|$)", message, flags=re.MULTILINE)
    words = []
    for kind in expected:
        kind = re.sub(r"<class '([\w.]+)'>", r"\1", kind)
        kind = re.sub(r"(?:typing|collections\.abc|torchnn[\w.]*)\.", "", kind)
        kind = re.sub(r"Literal\[(.*)\]", r"one of \1", kind)
        kind = PLAIN_TYPES.get(kind, kind)
        if kind not in words:
            words.append(kind)
    return " or ".join(words)
