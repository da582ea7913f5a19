"""`torchnn check`: what it prints, its exit status, and its error messages."""

import json
import sys
from pathlib import Path

import pytest

from torchnn.check.operations import OPERATIONS
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

def without_arguments():
    return (torch.ones(3),)

def whole_numbers(dtype, device, generator):
    return (torch.arange(3),)

def takes_two(a, b):
    return a
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.delitem(sys.modules, "user_module", raising=False)


def status(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["check", *args])
    code = stopped.value.code
    assert isinstance(code, int)
    return code


CORRECT = ("user_module:Square", "--inputs", "user_module:inputs", "--quick")


def test_a_correct_function_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*CORRECT, "--reference", "torch:square") == 0
    out = capsys.readouterr().out
    assert "0 FAIL" in out
    assert "grad_strides" in out
    assert "compiled" not in out


def test_a_wrong_function_exits_with_1_and_is_reported_as_json_and_html(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ("--shapes", "(5,3)", "--only", "gradient,unmutated", "--json", "--html", "page.html", "--seed", "3")
    assert status("user_module:Half", *asked) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["subject"] == "user_module:Half"
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


def test_without_a_target_all_own_operations_are_in_one_markdown_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--only", "value", "--markdown") == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert all(operation.name in out for operation in OPERATIONS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("user_module",), "give either --inputs"),
        (("user_module", "--shapes", "(3,)"), "a module, a colon and a name"),
        (("user_module:Cube", "--shapes", "(3,)"), "has no 'Cube'"),
        (("user_module:Sqare", "--shapes", "(3,)"), "has no 'Sqare' (did you mean 'Square'?)"),
        (("missing_module:Cube", "--shapes", "(3,)"), "cannot import 'missing_module'"),
        (("user_module:Square", "--shapes", "5,3"), "--shapes is '5,3'"),
        (("user_module:Square", "--shapes", "(5,-3)"), "--shapes is '(5,-3)'"),
        (("user_module:MODULE", "--shapes", "(3,)"), "has no 'MODULE'"),
        (("user_module:__name__", "--shapes", "(3,)"), "the target is a str"),
        (
            ("user_module:Square", "--inputs", "user_module:without_arguments"),
            "has to accept dtype, device, generator as keyword arguments",
        ),
        (("user_module:Square", "--inputs", "user_module:whole_numbers"), "needs at least one floating-point tensor"),
        ((*CORRECT, "--reference", "user_module:takes_two"), "the reference does not run on the inputs"),
        ((*CORRECT, "--only", "gradeint"), "'gradeint' is not a property (did you mean 'gradient'?)"),
        ((*CORRECT, "--device", "cuda:99"), "--device 'cuda:99' cannot be used"),
        ((*CORRECT, "--html", "nowhere/page.html"), "the folder nowhere does not exist"),
        ((*CORRECT, "--html", "user_module.py"), "already exists"),
        (("--reference", "torch:square"), "--reference needs a target"),
        (("--sheed", "3"), "did you mean --seed?"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_sentence(
    args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*args) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("torchnn: ")
    assert err.count("\n") == 1
    assert not out


def test_an_interruption_exits_with_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert status(*CORRECT) == 130
    assert "interrupted" in capsys.readouterr().err
