"""A Hub for checks in sections, in a process of its own: HF_ENDPOINT is read when huggingface_hub is imported.

A script imports this module before anything else, marks its checks with `@section` and ends with `run_sections(make)`.
It is run as `python script.py WORK_FOLDER`; it prints "ok NAME" for each section that passed and a traceback for each
other.
"""

import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub_server import TOKEN, HubServer

WORK = Path(sys.argv[1])
server = HubServer()
os.environ |= {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(WORK / "home"), "HF_HUB_DISABLE_XET": "1"}
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
SECTIONS: dict[str, Callable] = {}


def section(function: Callable) -> Callable:
    SECTIONS[function.__name__] = function
    return function


def fails(load: Callable, *expected: str) -> str:
    """The error that a call ends with, its kind first; the expected texts must be in it."""
    try:
        load()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        for text in expected:
            assert text in found, f"{text!r} not in {found}"
        return found
    raise AssertionError(f"loaded, expected an error with {expected}")


def run_sections(make: Callable[[], Any]) -> None:
    """Runs every section with what `make` gives it, on a server without faults."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message="Use .content=")  # inside huggingface_hub
    with server:
        for name, check in SECTIONS.items():
            server.fault = None
            try:
                check(make())
                print("ok", name, flush=True)
            except Exception:
                print("failed", name, flush=True)
                print(f"--- {name}\n{traceback.format_exc()}", file=sys.stderr)
    shutil.rmtree(WORK / "home", ignore_errors=True)
