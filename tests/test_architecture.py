"""The architecture: imports run downwards, without cycles; nothing heavy at import; one caller of `.apply`."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import torchnn

PACKAGE = Path(torchnn.__file__).parent
# From the bottom to the top: a part imports only what stands before it.
LAYERS = [
    *("_torch", "console", "files", "ops", "functional", "modules", "convert", "check", "explain"),
    *("tables", "data", "model", "runs", "training", "sklearn", "cli", "__main__"),
]


def module_of(path: Path) -> str:
    """The dotted name of a file, of a package that of its folder."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """The modules of torchnn that a file imports, inside its functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & MODULES.keys() - {"torchnn"}


def layer_of(module: str) -> str:
    return module.split(".")[1]


def test_imports_run_downwards_only() -> None:
    for name, path in MODULES.items():
        if name != "torchnn":
            above = LAYERS[LAYERS.index(layer_of(name)) + 1 :]
            wrong = [other for other in imports(path) if layer_of(other) in above]
            assert not wrong, f"{name} imports {wrong[0]}, which stands above it"
    assert {layer_of(name) for name in MODULES if name != "torchnn"} == set(LAYERS)


def test_no_file_imports_itself_through_others() -> None:
    """Inside folders too; an import inside a function hides a cycle from Python, not from this test."""
    graph = {name: imports(path) - {name} for name, path in MODULES.items() if not path.name.startswith("__init__")}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_layers_are_those_of_the_documentation() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    assert "cli → sklearn → runs → model → data → tables" in text


def test_the_public_names_load_neither_lightning_nor_matplotlib() -> None:
    script = (
        "import sys; from torchnn import *; import torchnn.check, torchnn.explain; "
        "print(*sorted({'lightning', 'torchmetrics', 'matplotlib', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_only_functional_calls_apply() -> None:
    callers = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if ".apply(" in path.read_text()}
    # What is checked comes with an `apply` of its own; `_torch` tries whether torch refuses one.
    assert callers == {"functional", "check", "_torch.py"}


def test_the_public_names_exist() -> None:
    assert set(torchnn.__all__) >= {
        *("Dense", "Sigmoid", "Tanh", "ReLU", "Step", "DenseActivation", "DenseSigmoid"),
        *("BCELoss", "BCEWithLogitsLoss", "MSELoss", "MLP", "functional", "convert", "revert"),
    }
    assert set(torchnn.functional.__all__) == {
        *("dense", "sigmoid", "tanh", "relu", "step", "dense_activation", "binary_cross_entropy"),
        *("binary_cross_entropy_with_logits", "mse_loss", "mlp", "mlp_loss"),
    }
