"""How much of a codebook a whole data set uses."""

import torch

from mosaics.evaluation.result import Measured


class CodeCounts:
    """Counts the codes of a data set; of each level, if codes are a tuple of grids.

    Args:
        num_embeddings: Number of codes K of a level.
    """

    def __init__(self, num_embeddings: int) -> None:
        self.num_embeddings = num_embeddings
        self.counts: list[torch.Tensor] = []

    def update(self, indices: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        """Takes in the codes of a batch, of any shape, or a tuple of them with one for each level, top first."""
        grids = indices if isinstance(indices, tuple | list) else (indices,)
        self.counts = self.counts or [torch.zeros(self.num_embeddings, dtype=torch.int64) for _ in grids]
        for counts, grid in zip(self.counts, grids, strict=True):
            counts += torch.bincount(grid.flatten().cpu(), minlength=self.num_embeddings)

    def usage(self) -> Measured:
        """Share of the codes that occur at all, 0 to 1, of each level."""
        return self._measured([float((counts > 0).double().mean()) for counts in self.counts])

    def perplexity(self) -> Measured:
        """The exponential of the entropy of the code frequencies, 1 to K (all codes equally often), of each level."""
        frequencies = [counts.double() / counts.sum() for counts in self.counts]
        return self._measured([float(torch.exp(-torch.xlogy(part, part).sum())) for part in frequencies])

    def _measured(self, values: list[float]) -> Measured:
        remark = f"of each level, top first, of {self.num_embeddings} codes" if len(values) > 1 else ""
        return Measured(values if len(values) > 1 else values[0], remark or f"of {self.num_embeddings} codes")
