r"""The checked arguments of `generate` of priors over codes: how many samples, from what, with which random numbers.

Everything given for the samples, such as class labels, has one row for all samples or one for each. The samples are
drawn in batches; a sample is a pure function of the weights, its own row of everything and its own uniforms.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from mosaics.layers.inference import MIN_ROWS
from mosaics.sampling import candidate_uniforms, check_sampling, draw


class SamplingStep(NamedTuple):
    """What the `callback` of `generate` is told after each code of a batch of samples."""

    position: int  # raster position of the code just drawn
    num_positions: int  # codes of a sample
    first_sample: int  # number of the first sample of the batch
    indices: torch.Tensor  # (samples of the batch, num_positions), drawn up to `position`, on the device


class SampleBatch(NamedTuple):
    """Samples that are drawn together.

    There are as many lanes as samples, or more if there were fewer than [`MIN_ROWS`][mosaics.layers.inference]; the
    surplus lanes repeat the last sample and are dropped.
    """

    first_sample: int
    count: int  # samples; the first lanes
    uniforms: torch.Tensor  # (lanes, positions)
    class_labels: torch.Tensor | None  # (lanes,)
    conditions: tuple[torch.Tensor, ...]  # each (lanes, ...)
    prefix: torch.Tensor | None  # (lanes, given positions)

    @property
    def lanes(self) -> int:
        """Rows to compute."""
        return len(self.uniforms)


class SamplingRequest:
    """The arguments of `generate`, checked, one row for each sample.

    Args:
        shape: Shape of a sample's codes: (h, w) or (T,).
        num_embeddings: Size K of the codebook.
        num_samples: Samples N; what the other arguments have rows for, or 1, if not given.
        class_labels: Checked class labels, (N,) or (1,), on the CPU as all that follows.
        conditions: Checked conditions, each (N, ...) or (1, ...).
        prefix_indices: The first rows of a grid, (rows, w) or (N, rows, w), or the first codes of a sequence, (n,) or
            (N, n).
        uniforms: Numbers in [0, 1), (N, positions); drawn from `seed` if not given.
        seed: Seed of the uniforms; drawn from torch's global generator if neither is given.
        temperature: See [`~mosaics.sampling.draw`], as for `top_k` and `top_p`.
        top_k: Draw from the `top_k` most likely codes only.
        top_p: Draw from the smallest set of most likely codes that holds this probability.
        batch_size: Samples computed at a time.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        num_embeddings: int,
        num_samples: int | None,
        class_labels: torch.Tensor | None,
        conditions: Sequence[torch.Tensor],
        prefix_indices: torch.Tensor | None,
        uniforms: torch.Tensor | None,
        seed: int | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        batch_size: int | None,
    ):
        check_sampling(temperature, top_k, top_p, num_embeddings)
        for name, count in (("num_samples", num_samples), ("batch_size", batch_size)):
            if count is not None:
                check_count(name, count)
        self.shape = shape
        self.num_positions = 1
        for side in shape:
            self.num_positions *= side
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.batch_size = batch_size
        prefix = self._prefix(prefix_indices, num_embeddings)
        given = {"class_labels": class_labels, "prefix_indices": prefix, "uniforms": uniforms}
        given |= {f"conditions[{level}]": condition for level, condition in enumerate(conditions)}
        self.num_samples = _num_samples(num_samples, {name: rows for name, rows in given.items() if rows is not None})
        self.class_labels = None if class_labels is None else self._for_each_sample(class_labels)
        self.conditions = tuple(self._for_each_sample(condition) for condition in conditions)
        self.prefix = None if prefix is None else self._for_each_sample(prefix)
        self.uniforms = self._uniforms(uniforms, seed)

    @property
    def num_given(self) -> int:
        """First positions that are not drawn."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def batches(self, default_size: int, device: torch.device) -> Iterator[SampleBatch]:
        """The samples in batches, on the device."""
        size = self.batch_size or default_size
        for first in range(0, self.num_samples, size):
            count = min(size, self.num_samples - first)
            rows = torch.arange(first, first + max(count, MIN_ROWS)).clamp(max=first + count - 1)
            yield SampleBatch(
                first,
                count,
                self.uniforms[rows].to(device),
                None if self.class_labels is None else self.class_labels[rows].to(device),
                tuple(condition[rows].to(device) for condition in self.conditions),
                None if self.prefix is None else self.prefix[rows].to(device),
            )

    def draw(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """One code for each row of logits (rows, K)."""
        return draw(logits, uniforms, self.temperature, self.top_k, self.top_p)

    def _prefix(self, prefix: torch.Tensor | None, num_embeddings: int) -> torch.Tensor | None:
        """(N or 1, given positions)."""
        if prefix is None:
            return None
        side, rest = self.shape[0], self.shape[1:]
        if prefix.dim() == len(self.shape):
            prefix = prefix[None]
        if prefix.dim() != 1 + len(self.shape) or tuple(prefix.shape[2:]) != rest:
            tail = "".join(f", {size}" for size in rest)
            raise ValueError(
                f"prefix_indices must be of shape (n{tail}), the first n of {side} for all samples, or (num_samples, "
                f"n{tail}), got {tuple(prefix.shape)}."
            )
        if prefix.shape[1] >= side:
            raise ValueError(
                f"prefix_indices must leave at least one of {side} {'rows' if rest else 'codes'} to draw, got "
                f"{prefix.shape[1]}."
            )
        prefix = prefix.cpu()
        check_codes("prefix_indices", prefix, num_embeddings)
        return prefix.flatten(start_dim=1).long()

    def _for_each_sample(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, ...) from (N, ...) or (1, ...)."""
        return rows if len(rows) == self.num_samples else rows.expand(self.num_samples, *rows.shape[1:])

    def _uniforms(self, uniforms: torch.Tensor | None, seed: int | None) -> torch.Tensor:
        shape = (self.num_samples, self.num_positions)
        if uniforms is None:
            seed = int(torch.randint(2**62, ())) if seed is None else seed
            return candidate_uniforms(seed, [0] * shape[0], range(shape[0]), shape[1])
        if seed is not None:
            raise ValueError("Give uniforms or seed, not both: the seed only serves to draw the uniforms.")
        if uniforms.shape != shape or not uniforms.is_floating_point():
            raise ValueError(
                f"uniforms must be floats of shape (num_samples, positions) = {shape}, got {uniforms.dtype} of shape "
                f"{tuple(uniforms.shape)}."
            )
        if not bool(((uniforms >= 0) & (uniforms < 1)).all()):
            raise ValueError("uniforms must be in [0, 1), without NaN.")
        return uniforms.float().cpu()


def _num_samples(num_samples: int | None, given: dict[str, torch.Tensor]) -> int:
    """The number of samples that all arguments agree on; one row serves for all samples."""
    if num_samples is None:
        num_samples = max((len(rows) for rows in given.values()), default=1)
    for name, rows in given.items():
        if len(rows) not in (1, num_samples) or not len(rows):
            raise ValueError(
                f"{name} must have one row for all samples, or num_samples={num_samples}, got {len(rows)}."
            )
    return num_samples


def check_count(name: str, count: int) -> None:
    """Raises if `count` is not an integer of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")


def check_codes(name: str, codes: torch.Tensor, limit: int, meaning: str = "num_embeddings") -> None:
    """Raises if `codes` are not integers from 0 to `limit - 1`; their range is read on the CPU only."""
    if codes.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 (torch.long), got {codes.dtype}.")
    if codes.device.type != "cpu" or torch.compiler.is_compiling() or not codes.numel():
        return
    low, high = (int(bound) for bound in codes.aminmax())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} must be from 0 to {meaning} - 1 = {limit - 1}, got values from {low} to {high}.")


def check_class_labels(class_labels: torch.Tensor | None, num_classes: int | None, num_rows: int | None) -> None:
    """Raises if class labels are missing, not wanted, or not `num_rows` integers below `num_classes`."""
    if num_classes is None:
        if class_labels is not None:
            raise ValueError("class_labels were given to a model without classes (config.num_classes is None).")
        return
    if class_labels is None:
        raise ValueError(f"class_labels are missing: the model has {num_classes} classes (config.num_classes).")
    if class_labels.dim() != 1 or (num_rows is not None and len(class_labels) != num_rows):
        shape = "(batch,)" if num_rows is None else f"(batch={num_rows},)"
        raise ValueError(f"class_labels must be of shape {shape}, got {tuple(class_labels.shape)}.")
    check_codes("class_labels", class_labels, num_classes, "num_classes")


def checked_class_labels(class_labels: torch.Tensor | int | None, num_classes: int | None) -> torch.Tensor | None:
    """The class labels of `generate` as (N,), or (1,) for all samples, on the CPU, where their range can be read.

    Raises:
        ValueError: See [`check_class_labels`].
    """
    if class_labels is not None:
        class_labels = torch.atleast_1d(torch.as_tensor(class_labels).cpu())
    check_class_labels(class_labels, num_classes, None)
    return class_labels
