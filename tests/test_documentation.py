"""What the documentation shows, runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import mosaics

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "pages").rglob("*.md")),
    *sorted((ROOT / "model_cards").glob("*.md")),
    ROOT / "examples" / "emoji" / "README.md",
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")
MODULES = [module.name for module in pkgutil.walk_packages(mosaics.__path__, "mosaics.")]


def blocks():
    for page in PAGES:
        for number, block in enumerate(BLOCK.findall(page.read_text()), start=1):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("block", list(blocks()))
def test_the_code_in_the_documentation_runs(block, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "documentation", "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    missing = [target for target in LINK.findall(text) if not (page.parent / target).exists()]
    assert not missing
