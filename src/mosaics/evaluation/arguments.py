"""The arguments of an evaluation, checked at the door."""

import importlib.util
from collections.abc import Iterable


def require_torchmetrics() -> None:
    """Raises an `ImportError` that says what to install, if torchmetrics is missing."""
    if importlib.util.find_spec("torchmetrics") is None:
        raise ImportError('evaluation needs torchmetrics: `pip install "mosaics[eval]"`.')


def check_counts(**counts: int | None) -> None:
    """Raises a `ValueError` that names the first count which is no integer of at least 1; `None` passes."""
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def check_names(wanted: Iterable[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics to compute: those wanted, in the usual order, or all.

    Raises:
        ValueError: A name is unknown.
    """
    if wanted is None:
        return known
    wanted = tuple(wanted)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"metrics must be some of {', '.join(known)}; got {', '.join(map(repr, unknown)) or 'none'}.")
    return tuple(name for name in known if name in wanted)
