"""Runs a script of sections, which has a Hub of its own, in another process: see section_runner.py."""

import os
import re
import subprocess
import sys
from pathlib import Path


def names_in(script: Path) -> list[str]:
    """The sections of a script, by its text."""
    return re.findall(r"^@section\ndef (\w+)", script.read_text(), flags=re.MULTILINE)


def sections_of(script: Path, work: Path) -> subprocess.CompletedProcess:
    """The finished process of a script."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, str(script), str(work)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
