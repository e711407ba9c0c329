"""One number of an evaluation, with where it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """A number that a model reached.

    Args:
        name: Name of the metric, such as `"psnr"`.
        value: The number.
        command: The command that prints it.
        dataset: The data set it was measured on: the id of one on the Hub, or a name.
        split: Split of that data set.
    """

    name: str
    value: float
    command: str | None = None
    dataset: str | None = None
    split: str | None = None
