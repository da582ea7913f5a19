"""Hooks for the site: mkdocs builds it from a copy of all pages, and docstrings are prepared for Markdown."""

import atexit
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from griffe import Extension

ROOT = Path(__file__).parent.parent
FOLDERS = "docs", "experiments", "torchnn", "lightning_logs"
PAGES = {".md", ".css", ".png", ".csv", ".sh", ".sbatch"}  # the pages and what they show or link to
LINKED = "LICENSE", "CITATION.cff", "constraints.txt"
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\n).*)*", flags=re.MULTILINE)
# "Forward:   formula" of an operation, with the lines that continue it
FACTS = re.compile(
    r"^(?:(?:Forward|Backward|Saved|Shapes|Raises|Reference): .*(?:\n[ ]+\S.*)*\n?)+", flags=re.MULTILINE
)


def files() -> list[Path]:
    """The files that become the site; runs in `lightning_logs` are left out."""
    found = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.suffix in PAGES]
    found = [path for path in found if path.parent == ROOT / "lightning_logs" or "lightning_logs" not in path.parts]
    return [*ROOT.glob("*.md"), *(ROOT / name for name in LINKED), *found]


def on_config(config: Any) -> Any:
    """Build from a copy: mkdocs wants all pages in one folder, and links between folders must keep working."""
    copy = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for path in files():
        to = copy / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    config["docs_dir"] = str(copy)
    return config


class Docstrings(Extension):
    """Make docstrings valid Markdown: doctests and formulas become blocks of code, `g[l](z)` is not a link."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = FACTS.sub(lambda found: f"```text\n{found[0].rstrip()}\n```\n", obj.docstring.value)
            text = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
            parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
            parts[::2] = [re.sub(r"\](?=\([^)]*\[)", r"]\\", part) for part in parts[::2]]
            obj.docstring.value = "".join(parts)
