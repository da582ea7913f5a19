"""How long a command takes to start, compared with the imports that it cannot avoid.

`python -m experiments.start_up` writes the table into docs/start-up.md. In each round all processes run in turn, so
that a busy moment of the machine affects all of them.
"""

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from statistics import median

from experiments.common.results import machine, with_block

PAGE = Path(__file__).parents[2] / "docs" / "start-up.md"
ROUNDS = 5
WITHOUT_TRANSFORMERS = """
import sys
from importlib.machinery import PathFinder

class WithoutTransformers(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "transformers" else super().find_spec(name, path, target)

sys.meta_path = [WithoutTransformers if finder is PathFinder else finder for finder in sys.meta_path]
import lightning_utilities.core.imports as requirements
version = requirements._version
def without(name):
    if name == "transformers":
        raise requirements.PackageNotFoundError(name)
    return version(name)
requirements._version = without
import lightning.pytorch
assert "transformers" not in sys.modules
"""
TORCHNN = ["-m", "torchnn"]
PROCESSES = {
    "`import torch`": ["-c", "import torch"],
    "`torchnn --help`": [*TORCHNN, "--help"],
    "`import torchnn`": ["-c", "import torchnn"],
    "`torchnn check --help`": [*TORCHNN, "check", "--help"],
    "`torchnn explain --help`": [*TORCHNN, "explain", "--help"],
    "`import lightning.pytorch`": ["-c", "import lightning.pytorch"],
    "`import lightning.pytorch` without transformers": ["-c", WITHOUT_TRANSFORMERS],
    "`torchnn fit --help`": [*TORCHNN, "fit", "--help"],
    "`torchnn export --help`": [*TORCHNN, "export", "--help"],
}


def seconds(words: list[str]) -> float:
    """The time of a Python process with these arguments."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True, env={**os.environ, "COLUMNS": "80"})
    return time.perf_counter() - start


def main() -> None:
    rounds = [{name: seconds(words) for name, words in PROCESSES.items()} for _ in range(ROUNDS)]
    lines = ["| process | seconds | divided by `import torch` |", "|---|---|---|"]
    reference = next(iter(PROCESSES))
    for name in PROCESSES:
        ratio = median(times[name] / times[reference] for times in rounds)
        lines.append(f"| {name} | {median(times[name] for times in rounds):.2f} | {ratio:.2f} |")
    lines += ["", f"Medians of {ROUNDS} rounds on {machine()}, torch {metadata.version('torch')}."]
    table = "\n".join(lines)
    PAGE.write_text(with_block(PAGE.read_text(), "start_up", f"\n{table}\n"))
    print(table)


if __name__ == "__main__":
    main()
