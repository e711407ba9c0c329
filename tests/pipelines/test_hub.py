"""Sharing a pipeline over the Hub's own protocol. The checks are in hub_sections.py."""

import subprocess
from pathlib import Path

import pytest

from hub_process import names_in, sections_of

SCRIPT = Path(__file__).with_name("hub_sections.py")


@pytest.fixture(scope="module")
def sections(tmp_path_factory) -> subprocess.CompletedProcess:
    return sections_of(SCRIPT, tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("name", names_in(SCRIPT))
def test_hub(sections, name):
    assert f"ok {name}" in sections.stdout.splitlines(), sections.stderr[-6000:]
