"""The house: imports run downwards, nothing heavy at import, one caller of `.apply`."""

import ast
import subprocess
import sys
from pathlib import Path

import torchnn

PACKAGE = Path(torchnn.__file__).parent
FLOORS = [
    *(
        "ops",
        "functional",
        "modules",
        "convert",
        "cli_errors",
        "check",
        "explain",
        "tables",
        "training",
        "sklearn",
        "ranks",
    ),
    *(
        "cli_resume",
        "cli_checks",
        "cli_folds",
        "cli_parser",
        "cli_checkpoint",
        "cli_explain",
        "cli_export",
        "cli",
        "__main__",
    ),
]


def imports(path: Path) -> set[str]:
    """Rooms of torchnn that a file imports from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            if module == "torchnn":
                names |= {alias.name for alias in node.names}  # type: ignore[attr-defined]
            elif module.startswith("torchnn."):
                names.add(module.split(".")[1])
    return names


def test_imports_run_downwards_only() -> None:
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            seen.add(room)
            above = set(FLOORS[FLOORS.index(room) + 1 :])
            assert not imports(path) & above, f"{path} imports from above"
    assert seen == set(FLOORS)


def test_import_torchnn_loads_neither_lightning_nor_matplotlib() -> None:
    script = (
        "import torchnn, sys; print(*sorted({'lightning', 'torchmetrics', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_only_functional_calls_apply() -> None:
    callers = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if ".apply(" in path.read_text()}
    assert callers == {"functional", "check"}  # what is checked comes with an `apply` of its own


def test_the_public_names_exist() -> None:
    assert set(torchnn.__all__) >= {
        *("Dense", "Sigmoid", "Tanh", "ReLU", "Step", "DenseActivation", "DenseSigmoid"),
        *("BCELoss", "BCEWithLogitsLoss", "MSELoss", "MLP", "functional", "convert", "revert"),
    }
    assert set(torchnn.functional.__all__) == {
        *("dense", "sigmoid", "tanh", "relu", "step", "dense_activation", "binary_cross_entropy"),
        *("binary_cross_entropy_with_logits", "mse_loss", "mlp", "mlp_loss"),
    }
