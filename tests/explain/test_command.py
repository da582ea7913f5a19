"""`torchnn explain`: what it prints and writes, and its error messages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.helpers import refused
from torchnn.cli import explain as cli_explain
from torchnn.cli import main
from torchnn.ops.activation import ACTIVATIONS
from torchnn.training import BinaryClassifier, TabularDataModule


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def status(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *args])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def checkpoint(path: str = "model.ckpt", names_data: bool = True, **options: object) -> BinaryClassifier:
    """Write a checkpoint in Lightning's format, of a model with a fitted standardisation."""
    data = TabularDataModule()
    model = BinaryClassifier(30, hidden_sizes=[5, 4], **options)  # type: ignore[arg-type]
    model.preprocess.fit(data.training_features())
    saved = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
    }
    if names_data:
        saved["datamodule_hyper_parameters"] = dict(data.hparams)
    torch.save(saved, path)
    return model


def test_without_a_checkpoint_it_explains_a_small_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert status() == 0
    out = capsys.readouterr().out
    assert "A 2-3-1 network (activation: sigmoid; loss: binary cross-entropy) on 2 examples" in out
    assert "0.8·0.5 + (−0.5)·(−1) + 0.1" in out
    assert "All gradients agree" in out
    assert "0.200304251960" in out  # ∂J/∂W[2] 1,1
    assert max(map(len, out.splitlines())) <= 120


def test_a_trained_model_on_rows_of_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint(pos_weight=2.0)
    assert status("--ckpt_path", "model.ckpt", "--row", "17,3", "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    table = TabularDataModule().table
    rows = torch.tensor([17, 3])
    x, y = model.preprocess(table.features[rows]), table.target[rows].unsqueeze(-1)
    loss = model.network(x, y, pos_weight=model.pos_weight)
    loss.backward()
    assert plain["sizes"] == [30, 5, 4, 1]
    assert plain["columns"][0] == "mean radius"
    assert plain["pos_weight"] == 2
    assert plain["value"] == pytest.approx(loss.item(), rel=1e-5)
    given = torch.tensor(plain["layers"][0]["grad_weight"]["by_hand"], dtype=torch.float32)
    right = model.network.layers[0].weight.grad
    torch.testing.assert_close(given, right, rtol=1e-4, atol=1e-6)
    assert "malignant" in plain["about"]


def test_the_page_replaces_an_earlier_page(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(loss="mse", output_activation="identity")
    args = ("--ckpt_path", "model.ckpt", "--layer", "2", "--max-width", "3", "--html", "page.html")
    assert status(*args) == 0
    assert "wrote page.html" in capsys.readouterr().err
    assert "squared error" in Path("page.html").read_text()
    assert status(*args) == 0
    streams = capsys.readouterr()
    assert "replaced page.html" in streams.err
    assert streams.out == ""


def test_a_checkpoint_that_does_not_name_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(names_data=False)
    assert "does not name the data" in refused(["explain", "--ckpt_path", "model.ckpt"], capsys)


def test_the_exit_status_is_1_if_a_gradient_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = ACTIVATIONS["sigmoid"]
    monkeypatch.setitem(ACTIVATIONS, "sigmoid", right._replace(backward=lambda g, a: g))
    assert status() == 1
    assert "✗ differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--row", "3"), "--row needs a trained model"),
        (("--data.path", "a.csv"), "--data.path needs a trained model"),
        (("--ckpt_path", "gone.ckpt"), "gone.ckpt"),
        (("--ckpt_path", "best"), "no run in"),
        (("--ckpt_path", "notes.txt"), "is another kind of file"),
        (("--ckpt_path", "model.ckpt", "--row", "569"), "--row 569 does not exist: the data has rows 0 to 568"),
        (("--ckpt_path", "model.ckpt", "--row", "-1"), "--row"),
        (("--ckpt_path", "model.ckpt", "--row", "x"), "'x' is not a list of rows"),
        (("--layer", "3"), "--layer 3 does not exist: the network has layers 1 to 2"),
        (("--layer", "0"), "--layer 0 does not exist"),
        (("--max-width", "0"), "'0' is not a width"),
        (("--lr", "-1"), "lr is -1"),
        (("--lr", "nan"), "lr is nan"),
        (("--html", "notes.txt"), "notes.txt exists and is not a page of torchnn explain"),
        (("--html", "."), "is a folder"),
        (("--html", "nowhere/page.html"), "the folder nowhere does not exist"),
        (("--widht", "3"), "did you mean --max-width?"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_sentence(
    args: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("mine")
    checkpoint()
    assert says in refused(["explain", *args], capsys)
    assert Path("notes.txt").read_text() == "mine"


def test_a_full_disk_is_reported_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    assert "--html page.html cannot be written (No space left on device)" in refused(
        ["explain", "--html", "page.html"], capsys
    )
    assert list(Path().iterdir()) == []


def test_an_interruption_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_explain, "explain", interrupted)
    assert status() == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_help_of_torchnn_lists_explain(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"^  explain ", capsys.readouterr().out, flags=re.MULTILINE)


WITHOUT_THE_EXTRAS = """
import sys

hidden = dict.fromkeys(["rich", "jinja2", "markupsafe", "contourpy"])
sys.modules.update(hidden)  # an import of these now fails
import torch
import torchnn
from torchnn.cli import main
from torchnn.explain import trace

assert trace(torchnn.MLP([2, 1]), torch.ones(2), torch.ones(1)).agrees
try:
    main(["explain"])
except SystemExit as stop:
    assert stop.code == 2
for name in hidden:
    del sys.modules[name]
try:
    main(["explain"])
except SystemExit as stop:
    assert stop.code == 0
assert "lightning" not in sys.modules
"""


def test_trace_needs_only_torch_and_the_small_network_does_not_need_lightning() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install 'torchnn[explain]'" in done.stderr
    assert "All gradients agree" in done.stdout


def test_the_docs_quote_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    (excerpt,) = re.findall(r"```\n(∂𝓛/∂W\[1\] = .*?)```", docs, flags=re.DOTALL)
    assert status() == 0
    printed = {line.rstrip() for line in capsys.readouterr().out.splitlines()}
    assert set(excerpt.splitlines()) <= printed
