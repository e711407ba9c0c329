"""The best candidates so far: all that a long search keeps in memory."""

from dataclasses import dataclass

import torch


@dataclass
class Candidate:
    """A finished picture.

    Args:
        prompt_index: Number of its prompt in the call.
        candidate_index: Number within its prompt.
        score: The opinion of CLIP or a classifier; `None` if it was not ranked.
        seed: What redraws it.
        indices: Codes `(h, w)`, or `(T,)` of all levels.
        pixels: `(C, H, W)` in [0, 1], on the CPU.
    """

    prompt_index: int
    candidate_index: int
    score: float | None
    seed: int
    indices: torch.Tensor
    pixels: torch.Tensor

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts the best first: by score, unranked ones last, then in the order they were drawn."""
        return (float("inf") if self.score is None else -self.score, self.candidate_index)


class BestCandidates:
    """A running top-k for each prompt. Memory is `num_prompts * keep` pictures, however many are offered."""

    def __init__(self, num_prompts: int, keep: int):
        self.keep = keep
        self.num_offered = 0
        self.by_prompt: list[list[Candidate]] = [[] for _ in range(num_prompts)]

    def offer(self, candidate: Candidate) -> None:
        """Takes a candidate in if it is among the best `keep` of its prompt, and drops the one it displaces."""
        self.num_offered += 1
        best = self.by_prompt[candidate.prompt_index]
        if len(best) == self.keep and candidate.rank >= best[-1].rank:
            return
        # Views would keep the whole chunk alive.
        candidate.indices, candidate.pixels = candidate.indices.clone(), candidate.pixels.clone()
        best.append(candidate)
        best.sort(key=lambda item: item.rank)
        del best[self.keep :]

    def __iter__(self):
        """All kept candidates, prompt by prompt, the best first."""
        return (candidate for best in self.by_prompt for candidate in best)
