"""The core works with torch and numpy only, and everything else says which extra it needs."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

import torchnn

REPOSITORY = Path(torchnn.__file__).parent.parent
EXTRAS = (
    *("lightning", "pytorch_lightning", "torchmetrics", "jsonargparse", "sklearn", "scipy", "pyarrow", "matplotlib"),
    *("rich", "contourpy", "onnx", "onnxscript", "onnxruntime", "pandas", "transformers"),
)
WITHOUT_EXTRAS = f"""
import sys
from importlib.machinery import PathFinder

class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {EXTRAS!r} else super().find_spec(name, path, target)

sys.meta_path = [WithoutExtras if finder is PathFinder else finder for finder in sys.meta_path]
"""
USE_THE_CORE = """
import torch
import torchnn
from torchnn.check import assert_backward

torch.manual_seed(0)
x = torch.randn(64, 3)
y = (x.sum(1, keepdim=True) > 0).float()
model = torchnn.MLP([3, 8, 1])
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
losses = []
for _ in range(30):
    optimizer.zero_grad()
    loss = model(x, y)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0] / 2, losses
theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid())
expected = theirs(x)
ours = torchnn.convert(theirs)
assert isinstance(ours[0], torchnn.Dense)
assert torch.allclose(ours(x), expected)
make_inputs = lambda **options: (torch.randn(5, **options),)
assert_backward(torchnn.functional.sigmoid, torch.sigmoid, make_inputs, only=["value", "gradient"])
"""
CHECK = [
    "check",
    "torchnn.functional:sigmoid",
    "--reference",
    "torch:sigmoid",
    "--shapes",
    "(5,)",
    "--only",
    "gradient",
]
SENTENCES = {
    "torchnn fit": "torchnn fit needs lightning, which is not installed: pip install 'torchnn[train]'.",
    "torchnn explain": "torchnn explain needs rich, which is not installed: pip install 'torchnn[explain]'.",
    "torchnn export": "torchnn export needs lightning, which is not installed: pip install 'torchnn[export]'.",
    "torchnn.sklearn": "torchnn.sklearn needs lightning, which is not installed: pip install 'torchnn[train]'.",
    "torchnn.training": "torchnn.training needs lightning, which is not installed: pip install 'torchnn[train]'.",
}


def test_the_core_needs_no_package_of_an_extra(tmp_path: Path) -> None:
    """One process in which the packages of the extras cannot be imported."""
    script = f"""
    import contextlib, importlib, io
    from torchnn.cli import main

    def status_and_sentence(*words):
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            try:
                main(words)
            except SystemExit as stop:
                return stop.code, stderr.getvalue()

    for user, sentence in {SENTENCES!r}.items():
        if " " in user:
            assert status_and_sentence(user.split()[1]) == (2, f"torchnn: {{sentence}}\\n"), user
        else:
            try:
                importlib.import_module(user)
            except ImportError as error:
                assert str(error) == sentence, error
            else:
                raise AssertionError(f"{{user}} can be imported")
    status, sentence = status_and_sentence(*{CHECK!r})
    assert status == 0, sentence
    """
    done = run(sys.executable, "-c", WITHOUT_EXTRAS + USE_THE_CORE + textwrap.dedent(script), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 PASS" in done.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_that_has_torch_only(tmp_path: Path) -> None:
    python = environment_with_torch_only(tmp_path)
    command = str(python.parent / "torchnn")
    assert run(python, "-c", "import lightning", folder=tmp_path).returncode == 1
    used = run(python, "-c", USE_THE_CORE, folder=tmp_path)
    assert used.returncode == 0, used.stderr
    checked = run(command, *CHECK, folder=tmp_path)
    assert (checked.returncode, "1 PASS" in checked.stdout) == (0, True), checked.stderr
    for user, sentence in SENTENCES.items():
        if " " in user:
            done = run(command, user.split()[1], folder=tmp_path)
            assert (done.returncode, done.stderr) == (2, f"torchnn: {sentence}\n")
        else:
            done = run(python, "-c", f"import {user}", folder=tmp_path)
            assert done.stderr.splitlines()[-1].endswith(f"Error: {sentence}")
    version = run(command, "--version", folder=tmp_path)
    assert version.stdout == f"torchnn {torchnn.__version__}\n"


def test_a_source_tree_runs_without_being_installed(tmp_path: Path) -> None:
    """No metadata of the package can be found: there is a copy of the source only."""
    shutil.copytree(REPOSITORY / "torchnn", tmp_path / "torchnn", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(sys.executable, "-m", "torchnn", "--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"torchnn {torchnn.__version__}\n")
    source = "\n".join(path.read_text() for path in (tmp_path / "torchnn").rglob("*.py"))
    assert "importlib.metadata" not in source, "the version is torchnn.__version__, which needs no metadata"


def environment_with_torch_only(folder: Path) -> Path:
    """The Python of a new environment with the wheel of torchnn, and links to the packages that it requires."""
    source, wheels, environment = folder / "source", folder / "wheels", folder / "environment"
    shutil.copytree(REPOSITORY / "torchnn", source / "torchnn", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", wheels, source, folder=folder)
    assert built.returncode == 0, built.stderr
    assert run(sys.executable, "-m", "venv", "--without-pip", environment, folder=folder).returncode == 0
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    for path in sorted(top_level_paths("torch", "numpy", "jaxtyping")):
        (packages / path.name).symlink_to(path)
    (wheel,) = wheels.iterdir()
    installed = run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    assert installed.returncode == 0, installed.stderr
    return python


def top_level_paths(*names: str) -> set[Path]:
    """The files and folders of these packages of the present environment, and of all that they require."""
    todo, done, paths = list(names), set(), set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        distribution = metadata.distribution(name)
        base = Path(str(distribution.locate_file("")))
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}
        paths |= {base / top for top in tops - {"__pycache__"}}
        required = [line for line in distribution.requires or [] if ";" not in line]
        todo += [re.split(r"[^\w.-]", line)[0] for line in required]
    return paths


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; a source tree in PYTHONPATH is replaced by the folder's own modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
