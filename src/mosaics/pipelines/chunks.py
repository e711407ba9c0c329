"""How the candidates of a call are cut into batches of bounded size."""

from collections.abc import Iterator
from typing import NamedTuple


class Chunk(NamedTuple):
    """The candidates of one batch: every candidate of `candidates` of every prompt of `prompts`."""

    prompts: range
    candidates: range

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(prompt, candidate) of each row, the candidates of a prompt adjacent."""
        return ((prompt, candidate) for prompt in self.prompts for candidate in self.candidates)


def cut_into_chunks(num_prompts: int, num_candidates: int, batch_size: int) -> Iterator[Chunk]:
    """Batches of at most `batch_size` candidates, prompt by prompt; several prompts share one if all theirs fit."""
    if num_candidates > batch_size:
        for prompt in range(num_prompts):
            for first in range(0, num_candidates, batch_size):
                yield Chunk(range(prompt, prompt + 1), range(first, min(first + batch_size, num_candidates)))
        return
    together = batch_size // num_candidates
    for first in range(0, num_prompts, together):
        yield Chunk(range(first, min(first + together, num_prompts)), range(num_candidates))
