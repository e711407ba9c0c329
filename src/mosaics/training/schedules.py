"""Schedules as pure functions of the step.

A schedule that is a function of the step has no state: it needs no entry in a checkpoint, a resumed run computes the
same value as an uninterrupted one, and it can be plotted without training.
"""

import math

__all__ = ["cosine_anneal", "exponential_anneal", "learning_rate_at", "linear_anneal", "linear_warmup"]


def _fraction(step: int, num_steps: int, name: str) -> float:
    """Progress of `step` through `num_steps`, clamped to [0, 1]."""
    if step < 0:
        raise ValueError(f"{name} expects a step of at least 0, got {step}.")
    if num_steps < 0:
        raise ValueError(f"{name} expects num_steps of at least 0, got {num_steps}.")
    return 1.0 if step >= num_steps else step / num_steps


def cosine_anneal(step: int, start: float, end: float, num_steps: int) -> float:
    r"""Moves from `start` to `end` along half a cosine, then stays at `end`.

    DALL-E (https://arxiv.org/abs/2102.12092, appendix A.2) anneals the Gumbel-softmax temperature and the weight of
    the KL term this way:

        value(step) = end + (start - end) * (1 + cos(pi * step / num_steps)) / 2

    Args:
        step: Optimizer steps taken so far, at least 0.
        start: Value at step 0.
        end: Value at `num_steps` and after.
        num_steps: Length of the anneal in optimizer steps; 0 means "already at `end`".

    Returns:
        The value, between `start` and `end`.

    Example:
        >>> [round(cosine_anneal(step, start=1.0, end=0.0, num_steps=4), 4) for step in (0, 1, 2, 4, 9)]
        [1.0, 0.8536, 0.5, 0.0, 0.0]
    """
    fraction = _fraction(step, num_steps, "cosine_anneal")
    if fraction == 1.0:
        return end
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * fraction))


def linear_anneal(step: int, start: float, end: float, num_steps: int) -> float:
    """Moves from `start` to `end` in a straight line over `num_steps` optimizer steps, then stays at `end`.

    Example:
        >>> [linear_anneal(step, start=0.0, end=2.0, num_steps=4) for step in (0, 1, 4, 5)]
        [0.0, 0.5, 2.0, 2.0]
    """
    fraction = _fraction(step, num_steps, "linear_anneal")
    return end if fraction == 1.0 else start + (end - start) * fraction


def exponential_anneal(step: int, start: float, end: float, num_steps: int) -> float:
    """Moves from `start` to `end`, both positive, by a constant factor a step, then stays at `end`.

    Example:
        >>> [exponential_anneal(step, start=1.0, end=0.25, num_steps=2) for step in (0, 1, 2)]
        [1.0, 0.5, 0.25]
    """
    if start <= 0 or end <= 0:
        raise ValueError(f"exponential_anneal expects positive start and end, got start={start} and end={end}.")
    fraction = _fraction(step, num_steps, "exponential_anneal")
    return end if fraction == 1.0 else start * (end / start) ** fraction


def linear_warmup(step: int, num_steps: int) -> float:
    """The factor of a linear warm-up: `(step + 1) / num_steps`, at most 1.

    The first step already moves (a factor of 0 would waste it); the factor is 1 from step `num_steps - 1` on.

    Example:
        >>> [linear_warmup(step, num_steps=4) for step in (0, 1, 3, 10)]
        [0.25, 0.5, 1.0, 1.0]
    """
    if step < 0:
        raise ValueError(f"linear_warmup expects a step of at least 0, got {step}.")
    return 1.0 if step + 1 >= num_steps else (step + 1) / num_steps


def learning_rate_at(
    step: int,
    *,
    peak: float,
    end: float,
    warmup_steps: int,
    decay_steps: int,
    schedule: str = "cosine",
    decay_start: int | None = None,
) -> float:
    """The learning rate of optimizer step number `step` (the first step is number 0).

    Args:
        step: Optimizer steps taken before this one.
        peak: Learning rate reached at the end of the warm-up.
        end: Learning rate from step `decay_steps` on ("cosine" and "linear").
        warmup_steps: Length of the linear warm-up; 0 means none.
        decay_steps: Step at which the decay is complete, warm-up included.
        schedule: "cosine", "linear" or "constant".
        decay_start: Step at which the decay begins; the rate stays at its peak from the warm-up until then. By default
            the end of the warm-up. The part before it serves runs of any length ("warmup-stable-decay", Hu et al.
            2024, https://arxiv.org/abs/2404.06395).

    Example:
        >>> rates = dict(peak=1.0, end=0.1, warmup_steps=2, decay_steps=10)
        >>> [learning_rate_at(step, **rates) for step in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    if step + 1 <= warmup_steps:
        return peak * linear_warmup(step, warmup_steps)
    if schedule == "constant":
        return peak
    start = warmup_steps if decay_start is None else max(decay_start, warmup_steps)
    since, span = max(step - start, 0), max(decay_steps - start, 0)
    if schedule == "cosine":
        return cosine_anneal(since, start=peak, end=end, num_steps=span)
    if schedule == "linear":
        return linear_anneal(since, start=peak, end=end, num_steps=span)
    raise ValueError(f'learning_rate_at expects schedule "cosine", "linear" or "constant", got {schedule!r}.')
