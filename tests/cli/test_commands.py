"""The table of commands: help, version, typos, and what a command imports."""

import subprocess
import sys

import pytest

import torchnn
from tests.cli.helpers import refused
from torchnn.cli import COMMANDS, main


def imported_by(statement: str, *packages: str) -> set[str]:
    """Which of the packages a new process has imported after a statement."""
    script = f"{statement}\nimport sys; print('imported', *{set(packages)} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_lists_every_command_with_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("fit", "validate", "test", "predict", "explain", "check", "export"):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 4


def test_help_check_and_explain_import_torch_but_not_lightning() -> None:
    run = "import torchnn.cli.check, torchnn.cli.explain\ntorchnn.cli.top_level_parser().print_help()"
    assert imported_by(run, "torch", "lightning", "torchmetrics", "pyarrow", "sklearn", "torch._dynamo") == {"torch"}


def test_a_name_of_transformers_is_imported_when_it_is_used() -> None:
    statement = (
        "import sys\n"
        "from torchnn.cli.startup import without_transformers\n"
        "with without_transformers(): from transformers import logging\n"
        "assert 'transformers' not in sys.modules\n"
        "logging.get_verbosity()"
    )
    assert imported_by(statement, "transformers") == {"transformers"}


@pytest.mark.slow
def test_fit_does_not_import_transformers_and_leaves_torchmetrics_complete() -> None:
    statement = (
        "import sys, torchnn.cli\n"
        "try: torchnn.cli.main(['fit', '--version'])\n"
        "except SystemExit: pass\n"
        "assert 'lightning' in sys.modules and 'transformers' not in sys.modules\n"
        "from torchmetrics.functional.text import bert\n"
        "used = bert.AutoModel.from_pretrained\n"
        "from transformers import AutoModel\n"
        "assert used == AutoModel.from_pretrained"
    )
    assert imported_by(statement, "transformers") == {"transformers"}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"torchnn {torchnn.__version__}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], f"give a command, one of {', '.join(COMMANDS)}; torchnn --help describes them."),
        (["chekc"], "'chekc' is not a command: did you mean check?"),
        (["fti"], "'fti' is not a command: did you mean fit?"),
        (["explian", "--row", "3"], "'explian' is not a command: did you mean explain?"),
        (["zzz"], f"'zzz' is not a command: choose one of {', '.join(COMMANDS)}."),
        (["--lr", "3", "fit"], "--lr comes before the command: write the command first, as in torchnn fit --lr."),
        (["--config", "run.yaml", "check"], "--config does not belong to check: see torchnn check --help."),
        (["--config"], "--config needs a value."),
        (["check", "--quik"], "--quik is not an argument: did you mean --quick?"),
        (["explain", "--rows", "1"], "--rows is not an argument: did you mean --row?"),
        (["export", "m.onnx", "--ckpt_pth", "x"], "--ckpt_pth is not an argument: did you mean --ckpt_path?"),
        (["export"], "the following arguments are required: output."),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(words, capsys) == f"torchnn: {sentence}\n"


def test_arguments_of_lightning_may_come_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--print_config", "fit"], ["fit", "--print_config"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert "max_epochs:" in capsys.readouterr().out
