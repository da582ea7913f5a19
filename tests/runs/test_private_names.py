"""Private names of Lightning stay in one file, so that another version of Lightning is one file to change."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest

import torchnn

PACKAGE = Path(torchnn.__file__).parent
ONLY = PACKAGE / "runs" / "_lightning.py"
# Hooks of Lightning that have no public name: of its command line, and of the strategy fsdp2.
HOOKS = {
    "cli/checkpoint.py": {"_parse_ckpt_path"},
    "cli/train.py": {
        *("_set_seed", "_get", "_parser", "_instantiate_trainer", "_run_subcommand", "_prepare_subcommand_parser")
    },
    "model/sharded.py": {"_setup_distributed", "_data_parallel_size", "_tensor_parallel_size", "_optimizers"},
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(path: Path) -> set[str]:
    """Private names of Lightning in a file: imported, of other objects, or inherited from a class of Lightning's."""
    text = path.read_text()
    tree = ast.parse(text)
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    if not any((node.module or "").startswith("lightning") for node in froms) and "import lightning" not in text:
        return set()
    found = {
        alias.name
        for node in froms
        if (node.module or "").startswith("lightning")
        for alias in node.names
        if is_private(alias.name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            is_inherited = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if not is_own and not is_inherited:
                found.add(node.attr)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return (found - defined) | set(overridden(path))


def overridden(path: Path) -> Iterator[str]:
    """Private names that classes of a file share with the classes of Lightning that they are derived from."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            bases = [base for base in value.__mro__ if base.__module__.startswith("lightning.")]
            theirs = " ".join(inspect.getsource(base) for base in bases)
            own = {name for name in re.findall(r"\b_[a-z]\w*", inspect.getsource(value)) if is_private(name)}
            yield from (name for name in own if re.search(rf"(self\.|def |super\(\)\.){name}\b", theirs))


@pytest.mark.parametrize("folder", ["data", "model", "runs", "cli", ""])
def test_private_names_of_lightning_are_in_one_file(folder: str) -> None:
    paths = (PACKAGE / folder).glob("*.py") if folder else [PACKAGE / "sklearn.py", PACKAGE / "console.py"]
    for path in paths:
        if path != ONLY:
            name = path.relative_to(PACKAGE).as_posix()
            assert private_names(path) <= HOOKS.get(name, set()), name


def test_the_search_finds_each_kind_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"_restarting", "_should_accumulate", "_callback_metrics"} <= private_names(ONLY)
    planted = PACKAGE / "runs" / "planted.py"
    text = (
        "from lightning.pytorch import Trainer\n"
        "from lightning.fabric.utilities.types import _Stateful\n"
        "from lightning.pytorch.callbacks import ModelCheckpoint\n"
        "class Mine(ModelCheckpoint):\n"
        "    def _save_checkpoint(self): self._own = self._enable_version_counter\n"
        "def look(trainer): return trainer.fit_loop._data_fetcher\n"
    )
    module = tmp_path / "planted_module.py"
    module.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = importlib.import_module("planted_module")
    monkeypatch.setattr(importlib, "import_module", lambda name: loaded)
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert private_names(planted) == {"_Stateful", "_save_checkpoint", "_enable_version_counter", "_data_fetcher"}


def test_every_private_name_is_still_lightnings() -> None:
    """A name that Lightning has dropped fails here, and not at the end of somebody's run."""
    source = "\n".join(path.read_text() for path in Path(pl.__file__).parent.rglob("*.py"))
    for name in private_names(ONLY) - {"_computed"}:  # torchmetrics'
        assert re.search(rf"\b{name}\b", source), name
