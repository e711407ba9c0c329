"""Fields of model outputs."""

import dataclasses
from typing import Any


def always_set() -> Any:
    """A field that every call fills, for a `ModelOutput`, which asks for a default of all its fields.

    Its type can then be what it holds, and need not be `... | None`.
    """
    return dataclasses.field(default=None)
