"""README and documentation: links lead somewhere, examples run, command lines parse, and the README stays short."""

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import yaml

from torchnn.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *ROOT.glob("*.md"),
    *DOCS,
    *(ROOT / "lightning_logs").glob("*.md"),
    *(page for folder in ("experiments", "torchnn") for page in sorted((ROOT / folder).rglob("*.md"))),
]
OWN_TEST = {"checking-a-backward.md"}  # its examples build on each other: tests/check/test_lessons.py
TRAINING = {"fit", "validate", "test", "predict"}  # these can print their configuration instead of running
LINK = re.compile(r"\]\(([^)\s]+(?: [^)]*)?)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """Markdown without its code."""
    return re.sub(r"(?m)^( {4}.*\n)+", "", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that a repository page gives to the headings of a file."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading in it."""
    broken = []
    for link in LINK.findall(prose(text)):
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    found: list[str] = re.findall(rf"(?m)^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL)
    return found


def examples(page: Path) -> list[str]:
    """Complete Python examples: those that import what they use."""
    return [block for block in blocks(page, "python") if re.match(r"(import|from) ", block)]


def command_lines(page: Path) -> list[list[str]]:
    """The words of each `torchnn` command of a page, without "torchnn"."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    starts = [(line, max(i for i, word in enumerate(line) if word == "torchnn")) for line in words if "torchnn" in line]
    return [line[start + 1 :] for line, start in starts if "…" not in line]


def status_and_output(words: list[str]) -> tuple[int | str | None, str, str]:
    """The exit status of a command that ends by itself, and what it wrote."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as ended, redirect_stdout(out), redirect_stderr(error):
        main(words)
    return ended.value.code, out.getvalue(), error.getvalue()


@cache
def flags(command: str) -> set[str]:
    """The flags that the help of a command names."""
    return set(re.findall(r"--[\w-]+", status_and_output([command, "--help"])[1]))


@cache
def complaint(*words: str) -> str:
    """What is wrong with a command line, or an empty text."""
    if words[0] in TRAINING:
        status, _, error = status_and_output([*words, "--print_config"])
        return "" if status == 0 else error or f"exit status {status}"
    unknown = {word.split("=")[0] for word in words if word.startswith("--")} - flags(words[0])
    return f"unknown flags: {', '.join(sorted(unknown))}" if unknown else ""


# links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


def test_broken_links_are_found() -> None:
    """The control: a missing file, a missing heading, and a formula that Markdown takes for a link."""
    text = "[a](docs/missing.md) [b](docs/derivation.md#9-nothing) [c](#nowhere) g[l](z[l]) `[d](code)`\n"
    right = "[e](docs/derivation.md#3-loss) [f](#speed) [g](https://example.org/x)\n\n    g[l](z[l])\n"
    assert broken_links(README, text + right) == [
        *("docs/missing.md", "docs/derivation.md#9-nothing", "#nowhere", "z[l]"),
    ]


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text())
    listed = set(re.findall(r"[\w/.-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert {name_of(page) for page in DOCS} <= listed


# examples


@pytest.mark.parametrize(
    "page", [page for page in (README, *DOCS) if page.name not in OWN_TEST and examples(page)], ids=name_of
)
def test_every_complete_python_example_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in examples(page):
        exec(compile(example, str(page), "exec"), {"__name__": "example"})


def test_the_pages_that_teach_python_have_examples() -> None:
    assert {name_of(page) for page in (README, *DOCS) if examples(page)} >= {
        *("README.md", "docs/modules.md", "docs/explain.md", "docs/checking-a-backward.md"),
    }


@pytest.mark.parametrize("page", [page for page in (README, *DOCS) if command_lines(page)], ids=name_of)
def test_every_torchnn_command_line_parses(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_0" / "config.yaml").write_text("model:\n  lr: 0.01\n")
    wrong = {shlex.join(words): said for words in command_lines(page) if (said := complaint(*words))}
    assert wrong == {}


@pytest.mark.parametrize("command", ["fit --model.lrr 0.1", "fit --trainer.max_epochs many", "explain --rows 3"])
def test_a_wrong_command_line_is_found(command: str) -> None:
    assert complaint(*command.split())


# the README


def test_the_readme_has_at_most_900_words() -> None:
    assert len(README.read_text().split()) <= 900


def test_the_readme_begins_with_the_two_commands() -> None:
    first = blocks(README, "sh")[0].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make run", "make test"]


def test_the_example_of_the_readme_has_about_ten_lines() -> None:
    (example,) = examples(README)
    assert len(example.splitlines()) <= 12
