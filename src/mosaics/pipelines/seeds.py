"""One seed for every candidate, so that one number redraws one picture."""

from collections.abc import Sequence

import numpy as np
import torch

from mosaics.sampling import MAX_SEED, candidate_uniforms


def candidate_seed(seed: int, prompt_index: int, candidate_index: int) -> int:
    """The seed of one candidate: `seed` itself for the first candidate of the first prompt, else derived from it.

    So `pipe(prompt, seed=s)` with the seed `s` of any picture of any call gives that picture again.

    Returns:
        0 to 2**64 - 1.
    """
    if prompt_index == candidate_index == 0:
        return int(seed)
    sequence = np.random.SeedSequence(int(seed), spawn_key=(prompt_index, candidate_index))
    return int(sequence.generate_state(1, np.uint64)[0])


def seed_uniforms(seeds: Sequence[int], num_tokens: int) -> torch.Tensor:
    """The random numbers `(len(seeds), num_tokens)` of candidates, each a function of its own seed alone."""
    return torch.cat([candidate_uniforms(seed, [0], [0], num_tokens) for seed in seeds])


def resolve_seeds(
    seed: int | Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    num_prompts: int,
    num_candidates: int,
    prompts: str = "prompts",
) -> list[list[int]]:
    """The seed of every candidate of every prompt.

    Args:
        seed: One seed for the call, one for each prompt, or one for each candidate of each prompt, prompt by prompt.
        generator: In place of `seed`; every generator gives one seed, and moves on.
        num_prompts: Prompts P.
        num_candidates: Candidates C of each prompt.
        prompts: What to call the prompts in a message.

    Returns:
        P lists of C seeds.

    Raises:
        ValueError: Both are given, a seed is no integer from 0 to 2**64 - 1, or the list has another length.
    """
    if seed is not None and generator is not None:
        raise ValueError("give seed or generator, not both: a generator only serves to draw the seed.")
    name = "seed"
    if generator is not None:
        name = "generator"
        several = isinstance(generator, Sequence)
        seeds = [_draw_seed(item) for item in (generator if several else [generator])]
        seed = seeds if several else seeds[0]
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    if not isinstance(seed, Sequence) or isinstance(seed, str):
        _check_seed(seed)
        return [[candidate_seed(seed, p, c) for c in range(num_candidates)] for p in range(num_prompts)]
    for item in seed:
        _check_seed(item)
    if len(seed) == num_prompts:
        return [[candidate_seed(item, 0, c) for c in range(num_candidates)] for item in seed]
    if len(seed) == num_prompts * num_candidates:
        return [
            [int(item) for item in seed[start : start + num_candidates]] for start in _starts(seed, num_candidates)
        ]
    raise ValueError(
        f"{name} must be one, or a list of one for each of the {num_prompts} {prompts}, or of one for each of the "
        f"{num_prompts * num_candidates} candidates; got a list of {len(seed)}."
    )


def _starts(seeds: Sequence[int], step: int) -> range:
    return range(0, len(seeds), step)


def _draw_seed(generator: torch.Generator) -> int:
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or a list of them, got {type(generator).__name__}.")
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}.")
