"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.demo.page import build as build
from mosaics.demo.serving import launch as launch
