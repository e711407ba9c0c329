"""Sharing a pipeline over the Hub's own protocol. The checks are in hub_sections.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("hub_sections.py")
SECTIONS = re.findall(r"^@section\ndef (\w+)", SCRIPT.read_text(), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def sections(tmp_path_factory) -> subprocess.CompletedProcess:
    """The finished process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("hub"))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


@pytest.mark.parametrize("name", SECTIONS)
def test_hub(sections, name):
    assert f"ok {name}" in sections.stdout.splitlines(), sections.stderr[-6000:]
