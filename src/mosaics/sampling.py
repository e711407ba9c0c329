"""Random numbers and draws of autoregressive sampling: a token is a pure function of its logits and of one uniform."""

import math
from collections.abc import Sequence

import numpy as np
import torch

MAX_SEED = 2**64 - 1


def candidate_uniforms(
    seed: int, prompt_indices: Sequence[int], candidate_indices: Sequence[int], num_tokens: int
) -> torch.Tensor:
    r"""The random numbers of candidates, one row each, drawn before any token is.

    A row depends on nothing but (seed, prompt index, candidate index): not on the device, on the other rows, on their
    order or on the number of processes. (numpy's Philox generator, seeded by a `SeedSequence`; both are stable between
    versions.) The first n numbers of a row are the same for any `num_tokens >= n`.

    Args:
        seed: 0 to 2**64 - 1.
        prompt_indices: Number of its prompt for each row.
        candidate_indices: Number within its prompt for each row; as long as `prompt_indices`.
        num_tokens: Columns.

    Returns:
        float32 (rows, num_tokens) in [0, 1), on the CPU.

    Example:
    ```python
    >>> both = candidate_uniforms(0, prompt_indices=[0, 0], candidate_indices=[0, 1], num_tokens=4)
    >>> bool((both[1] == candidate_uniforms(0, [0], [1], 4)[0]).all())
    True

    ```
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}.")
    if len(prompt_indices) != len(candidate_indices):
        raise ValueError(
            "prompt_indices and candidate_indices must have one entry for each row, got "
            f"{len(prompt_indices)} and {len(candidate_indices)}."
        )
    rows = np.empty((len(prompt_indices), num_tokens), dtype=np.float32)
    for row, prompt, candidate in zip(rows, prompt_indices, candidate_indices, strict=True):
        sequence = np.random.SeedSequence(int(seed), spawn_key=(int(prompt), int(candidate)))
        np.random.Generator(np.random.Philox(sequence)).random(out=row, dtype=np.float32)
    return torch.from_numpy(rows)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, vocab_size: int) -> None:
    """Raises `ValueError` if an argument of [`draw`] is out of range."""
    if not (isinstance(temperature, (int, float)) and 0 <= temperature < math.inf):
        raise ValueError(f"temperature must be a finite number of at least 0 (0 is greedy), got {temperature!r}.")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= vocab_size):
        raise ValueError(
            f"top_k must be an integer from 1 to the vocabulary size {vocab_size}, or None for all, got {top_k!r}."
        )
    if top_p is not None and not (isinstance(top_p, (int, float)) and 0 < top_p <= 1):
        raise ValueError(f"top_p must be above 0 and at most 1, or None for all tokens, got {top_p!r}.")


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): `unconditional + scale * (conditional - unconditional)`."""
    return torch.lerp(unconditional.float(), conditional.float(), scale)


def draw(
    logits: torch.Tensor,
    uniform: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> torch.Tensor:
    r"""One token a row by inverse CDF: the first token whose cumulative probability exceeds the row's uniform.

    It needs one pass over the row instead of the V random numbers a row of `torch.multinomial`, and gives the same
    distribution. Tokens of zero probability (logit -inf, or filtered) are never drawn.

    Args:
        logits: (rows, V), any floating dtype; computed in float32.
        uniform: (rows,) in [0, 1).
        temperature: Divides the logits; 0 takes the most likely token, the first of equal ones.
        top_k: Only the `top_k` largest logits, and those equal to the last of them.
        top_p: Only the smallest set of most likely tokens whose probability is at least `top_p`, and those as likely
            as the last of them; within `top_k` if both are given.

    Returns:
        Tokens (rows,), int64.
    """
    check_sampling(temperature, top_k, top_p, logits.shape[-1])
    logits = logits.float()
    if temperature == 0:
        return logits.argmax(dim=-1)
    # Probabilities up to a factor; the largest is 1. In place: fresh memory costs more than the arithmetic.
    weights = (logits - logits.amax(dim=-1, keepdim=True)).div_(temperature).exp_()
    if top_k is not None and top_k < weights.shape[-1]:
        largest = weights.topk(top_k, dim=-1).values
        weights = torch.where(weights >= largest[:, -1:], weights, 0)
    if top_p is not None and top_p < 1:
        weights = torch.where(weights >= nucleus_threshold(weights, top_p), weights, 0)
    cdf = weights.cumsum_(dim=-1)
    total = cdf[:, -1:]
    # Strictly below the total: a uniform that was rounded to 1 must not select a token after the last possible one.
    target = torch.minimum(uniform[:, None].float() * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target, right=True)[:, 0]


def nucleus_threshold(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """The largest threshold (rows, 1) such that the weights (rows, V) not below it hold a share of at least `top_p`.

    Bisection on the bit patterns, which order like the floats they stand for: 31 passes over the rows find the
    threshold exactly, without sorting them.
    """
    enough = weights.sum(dim=-1, keepdim=True) * top_p
    low = torch.zeros_like(enough, dtype=torch.int32)
    high = weights.amax(dim=-1, keepdim=True).view(torch.int32) + 1
    for _ in range(31):
        middle = low + (high - low) // 2
        kept = torch.where(weights >= middle.view(torch.float32), weights, 0).sum(dim=-1, keepdim=True)
        low = torch.where(kept >= enough, middle, low)
        high = torch.where(kept >= enough, high, middle)
    return low.view(torch.float32)
