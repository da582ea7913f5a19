"""How a command of an experiment ends early: exit statuses, and one sentence instead of a traceback."""

import argparse
from typing import Any, NoReturn

BAD_ARGUMENT, INTERRUPTED = 2, 130  # exit statuses


class UnavailableError(Exception):
    """Something that a measurement needs is missing; the message is one sentence that says what to do."""


class OneSentenceParser(argparse.ArgumentParser):
    """An argument parser that reports an error in one sentence, without the usage, in the name of its experiment."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_ARGUMENT, f"{self.prog.split('.')[-1]}: {message}.\n")
