"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.cli.app import main as main
