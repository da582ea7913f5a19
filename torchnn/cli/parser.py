"""Lightning's argument parser, which here reports a mistake in one sentence."""

from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from torchnn.console import fail, one_sentence, options


class TrainingParser(LightningArgumentParser):
    """Lightning's parser, without the usage before each error and without shortened flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        fail(one_sentence(message, options(parser)))
