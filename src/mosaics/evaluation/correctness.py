"""Whether drawn pictures show what their captions say, by a judge."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch

from mosaics.evaluation.result import Measured, Unavailable

ALL = "all"

# From the numbers of samples of the data set and the pictures drawn for them, (B, C, H, W) in [0, 1]: for each sample
# the statements that its caption makes, each with whether the picture bears it out; "all" says whether all are.
Judge = Callable[[Sequence[int], torch.Tensor], Sequence[Mapping[str, Sequence[bool]]]]


class CaptionCorrectness:
    """The share of pictures that show all that their captions say.

    Args:
        judge: Reads the pictures.

    Raises:
        Unavailable: There is no judge.
    """

    def __init__(self, judge: Judge | None) -> None:
        if judge is None:
            raise Unavailable("there is no judge of these captions (judge).")
        self.judge = judge
        self.shown: dict[str, list[bool]] = defaultdict(list)

    def update(self, pictures: torch.Tensor, numbers: Sequence[int]) -> None:
        """Takes in the pictures of the samples with these numbers."""
        read = self.judge(numbers, pictures)
        if len(read) != len(numbers):
            raise ValueError(f"judge must say something of each of {len(numbers)} pictures, got {len(read)} answers.")
        for statements in read:
            if ALL not in statements:
                raise ValueError(f"judge must say whether {ALL!r} statements are right, got {', '.join(statements)}.")
            for name, right in statements.items():
                self.shown[name] += right

    def compute(self) -> Measured:
        """The share, and as a remark that of each kind of statement."""
        shares = {name: sum(right) / len(right) for name, right in self.shown.items()}
        remark = ", ".join(
            f"{name} {share:.1%} of {len(self.shown[name])}" for name, share in shares.items() if name != ALL
        )
        return Measured(shares[ALL], remark)
