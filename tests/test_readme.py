"""The README's example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_every_python_block_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        assert len(block.splitlines()) <= 20
        exec(compile(block, str(README), "exec"), {"__name__": "readme"})


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([\w./]+)\)", README.read_text())
    assert links
    assert all((README.parent / link).exists() for link in links)
