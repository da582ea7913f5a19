"""How long a command takes to start, compared with the imports that it cannot avoid.

`python -m experiments.start_up` prints a Markdown table. All commands run in turn, in each round in the same order, so
that a busy moment of the machine affects all of them.
"""

import os
import subprocess
import sys
import time
from statistics import median

from experiments.common.results import machine

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
"""
TORCHNN = ["-m", "torchnn"]
PROCESSES = {
    "`import torch`": ["-c", "import torch"],
    "`torchnn --help`": [*TORCHNN, "--help"],
    "`import torchnn`": ["-c", "import torchnn"],
    "`from torchnn import *`": ["-c", "from torchnn import *"],
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
    print(f"Medians of {ROUNDS} rounds, {machine()}.\n")
    print("| process | seconds | times `import torch` |\n|---|---|---|")
    reference = next(iter(PROCESSES))
    for name in PROCESSES:
        ratio = median(times[name] / times[reference] for times in rounds)
        print(f"| {name} | {median(times[name] for times in rounds):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
