"""`torchnn check`: what it prints, its exit status, and one sentence for each mistake in its use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from torchnn.check.operations import OWN
from torchnn.cli import check as command
from torchnn.cli import main

MODULE = """
import torch
from torch.autograd import Function

class Square(Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx, grad_output):
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output

class Half(Square):
    @staticmethod
    def backward(ctx, grad_output):
        return Square.backward(ctx, grad_output) / 2

def inputs(dtype, device, generator):
    return (torch.randn(5, 3, dtype=dtype, generator=generator),)

def of_no_arguments():
    return (torch.ones(3),)

def of_integers(dtype, device, generator):
    return (torch.arange(3),)

def takes_two(a, b):
    return a
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_user.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.delitem(sys.modules, "of_a_user", raising=False)


def status(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["check", *args])
    code = stopped.value.code
    assert isinstance(code, int)
    return code


RIGHT = ("of_a_user:Square", "--inputs", "of_a_user:inputs", "--quick")


def test_a_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*RIGHT, "--reference", "torch:square") == 0
    out = capsys.readouterr().out
    assert "0 FAIL" in out
    assert "grad_strides" in out
    assert "compiled" not in out


def test_a_wrong_one_as_json_and_as_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ("--shapes", "(5,3)", "--only", "gradient,unmutated", "--json", "--html", "page.html", "--seed", "3")
    assert status("of_a_user:Half", *asked) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["subject"] == "of_a_user:Half"
    assert report["failures"] == ["gradient"]
    assert report["seed"] == 3
    gradient = next(row for row in report["rows"] if row["property"] == "gradient")
    assert gradient["status"] == "FAIL"
    assert "0.5 times the right one" in gradient["message"]
    assert "(1, 3)" in gradient["message"]  # the smallest inputs that show it
    page = (tmp_path / "page.html").read_text()
    assert "0.5 times the right one" in page
    assert "src=" not in page
    assert "href=" not in page


def test_all_of_torchnn_in_one_table_of_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--quick", "--markdown") == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert all(own.name in out for own in OWN)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("of_a_user",), "give either --inputs"),
        (("of_a_user", "--shapes", "(3,)"), "a module, a colon and a name"),
        (("of_a_user:Cube", "--shapes", "(3,)"), "has no 'Cube'"),
        (("of_a_user:Sqare", "--shapes", "(3,)"), "has no 'Sqare' (did you mean 'Square'?)"),
        (("of_nobody:Cube", "--shapes", "(3,)"), "cannot be imported"),
        (("of_a_user:Square", "--shapes", "5,3"), "--shapes is '5,3'"),
        (("of_a_user:Square", "--shapes", "(5,-3)"), "--shapes is '(5,-3)'"),
        (("of_a_user:MODULE", "--shapes", "(3,)"), "has no 'MODULE'"),
        (("of_a_user:__name__", "--shapes", "(3,)"), "the target is a str"),
        (("of_a_user:Square", "--inputs", "of_a_user:of_no_arguments"), "dtype, device, generator by name"),
        (("of_a_user:Square", "--inputs", "of_a_user:of_integers"), "some of them floating-point"),
        ((*RIGHT, "--reference", "of_a_user:takes_two"), "the reference cannot run on the inputs"),
        ((*RIGHT, "--only", "gradeint"), "'gradeint' is no property (did you mean 'gradient'?)"),
        ((*RIGHT, "--device", "cuda:99"), "--device 'cuda:99' cannot be used"),
        ((*RIGHT, "--html", "nowhere/page.html"), "there is no folder nowhere"),
        ((*RIGHT, "--html", "of_a_user.py"), "is there already"),
        (("--reference", "torch:square"), "--reference belongs to a target"),
        (("--sheed", "3"), "did you mean --seed?"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(
    args: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*args) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.startswith("torchnn: ")
    assert err.count("\n") == 1
    assert not out


def test_an_interruption_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert status(*RIGHT) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_command_does_not_load_lightning() -> None:
    script = (
        "import sys; from torchnn.cli import main\n"
        "try: main(['check', '--only', 'value'])\n"
        "except SystemExit as end: print(end.code, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
