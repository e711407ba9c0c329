"""Marks that transformers' tests carry, and the table of results that the documentation gives."""

from collections import Counter
from pathlib import Path

import pytest

MARKS = ("slow", "order", "accelerate_tests", "torch_compile_test")
MARKS += ("flash_attn_test", "flash_attn_3_test", "flash_attn_4_test")
OUTCOMES = {"passed": "pass", "xfailed": "excepted", "skipped": "skip themselves", "failed": "fail"}


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", f"{mark}: a mark of transformers' own tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    folder = f"/{Path(__file__).parent.name}/"
    counts: dict[str, Counter] = {}
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, ()):
            parts = getattr(report, "nodeid", "").split("::")
            if folder in parts[0] and len(parts) == 3:
                counts.setdefault(parts[1].removeprefix("Test").removesuffix("Test"), Counter())[outcome] += 1
    if counts:
        terminalreporter.section("common tests of transformers and diffusers")
        terminalreporter.write_line(f"| Class | {' | '.join(OUTCOMES.values())} |")
        for name, count in counts.items():
            terminalreporter.write_line(f"| `{name}` | {' | '.join(str(count[outcome]) for outcome in OUTCOMES)} |")
