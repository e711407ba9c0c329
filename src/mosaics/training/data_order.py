"""Which samples a step reads: a pure function of the seed, the epoch, the step, the rank and the world size.

Nothing about the order is stored or fast-forwarded. A run that resumes at step `s` asks for the batches of step `s`,
and any process can say what any other process reads. Samples that draw random numbers (crops, flips, caption choice)
draw them from generators seeded by (seed, epoch, index), so they too come out the same after a resume, with any number
of worker processes.
"""

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, default_collate

from mosaics.training.randomness import mix_seed, preserved_rng, seed_cpu_rng

__all__ = ["Position", "StepSampler", "is_stream", "training_batches"]

Key = tuple[int, int]  # (epoch, index within the epoch's dataset or stream)


@dataclass(frozen=True)
class Position:
    """A place in the data: `step` optimizer steps into `epoch`."""

    epoch: int = 0
    step: int = 0


def is_stream(dataset: Any) -> bool:
    """Whether a dataset can only be read from front to back (no `len` and no `dataset[i]`)."""
    if isinstance(dataset, IterableDataset):
        return True
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return False
    if hasattr(dataset, "__iter__"):
        return True
    raise TypeError(
        f"A dataset needs `len(dataset)` and `dataset[i]`, or `iter(dataset)`; {type(dataset).__name__} has neither."
    )


class StepSampler(Sampler[list[Key]]):
    """The keys `(epoch, index)` of every micro-batch of one process, from one optimizer step to another.

    Each epoch is a permutation of the dataset, a function of (seed, epoch). A step reads the next
    `batch_size * accumulation * world_size` samples of it, whichever processes and micro-batches share them: one
    process with batch 8, two with batch 4, and one that accumulates 2 x 4 read the same samples at the same step.
    The samples left over at the end of an epoch (fewer than one step's) are not read in that epoch.

    Args:
        num_samples: Length of the dataset.
        batch_size: Samples in one micro-batch of one process.
        seed: Seed of the permutations.
        start: First optimizer step.
        stop: Optimizer step before which to stop; `None` goes on for ever.
        rank: Number of this process.
        world_size: Number of processes.
        accumulation: Micro-batches in an optimizer step.
        shuffle: Whether epochs are permuted.

    Raises:
        ValueError: If the dataset holds fewer samples than one step needs.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int = 0,
        *,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        shuffle: bool = True,
    ):
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.start, self.stop, self.shuffle = start, stop, shuffle
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation
        self.samples_per_step = batch_size * world_size * accumulation
        self.steps_per_epoch = num_samples // self.samples_per_step
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"The training dataset holds {num_samples} samples, fewer than the {self.samples_per_step} of one "
                f"optimizer step (train_batch_size {batch_size} x gradient_accumulation_steps {accumulation} x "
                f"{world_size} processes). Lower train_batch_size or add data."
            )
        self._order: tuple[int, torch.Tensor] | None = None

    def position(self, step: int) -> Position:
        """The place in the data at which optimizer step `step` begins."""
        return Position(*divmod(step, self.steps_per_epoch))

    def keys(self, step: int, micro_batch: int = 0) -> list[Key]:
        """What this process reads in micro-batch `micro_batch` of optimizer step `step`."""
        place = self.position(step)
        first = place.step * self.samples_per_step + (micro_batch * self.world_size + self.rank) * self.batch_size
        indices = self._permutation(place.epoch)[first : first + self.batch_size]
        return [(place.epoch, index) for index in indices.tolist()]

    def _permutation(self, epoch: int) -> torch.Tensor:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, "order", epoch))
            order = torch.randperm(self.num_samples, generator=generator) if self.shuffle else None
            self._order = (epoch, torch.arange(self.num_samples) if order is None else order)
        return self._order[1]

    def __iter__(self) -> Iterator[list[Key]]:
        step = self.start
        while self.stop is None or step < self.stop:
            for micro_batch in range(self.accumulation):
                yield self.keys(step, micro_batch)
            step += 1


class _SeededSamples(Dataset):
    """Reads samples by key, each under generators seeded by its key."""

    def __init__(self, dataset: Sequence[Any], seed: int):
        self.dataset, self.seed = dataset, seed

    def __getitems__(self, keys: list[Key]) -> tuple[list[Key], list[Any]]:
        samples = []
        with preserved_rng():
            for epoch, index in keys:
                seed_cpu_rng(mix_seed(self.seed, "sample", epoch, index))
                with _naming_sample(index):
                    samples.append(self.dataset[index])
        return keys, samples


class _SeededStream(IterableDataset):
    """Micro-batches of one process from a stream that every process reads from the same front."""

    def __init__(self, dataset: Iterable[Any], split: "StreamSplit", seed: int, position: Position):
        self.dataset, self.split, self.seed, self.position = dataset, split, seed, position

    def __iter__(self) -> Iterator[tuple[list[Key], list[Any]]]:
        epoch, skip = self.position.epoch, self.position.step * self.split.samples_per_step
        while True:
            yielded = False
            for batch in self._epoch(epoch, skip):
                yielded = True
                yield batch
            if not yielded and skip == 0:
                raise ValueError(
                    f"The training stream ended before the {self.split.samples_per_step} samples of one optimizer "
                    f"step in epoch {epoch}. Lower train_batch_size or add data."
                )
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[tuple[list[Key], list[Any]]]:
        """Whole optimizer steps only, so that every process ends the epoch at the same step."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        step: list[tuple[Key, Any]] = []
        for index, sample in enumerate(self._samples(epoch)):
            if index < skip:
                continue
            step.append(((epoch, index), sample))
            if len(step) == self.split.samples_per_step:
                for part in self.split.parts():
                    keys, samples = zip(*step[part], strict=True)
                    yield list(keys), list(samples)
                step = []

    def _samples(self, epoch: int) -> Iterator[Any]:
        iterator, index = None, 0
        while True:
            with preserved_rng():
                seed_cpu_rng(mix_seed(self.seed, "sample", epoch, index))
                iterator = iter(self.dataset) if iterator is None else iterator
                with _naming_sample(index):
                    try:
                        sample = next(iterator)
                    except StopIteration:
                        return
            yield sample
            index += 1


@dataclass(frozen=True)
class StreamSplit:
    """How the samples of one optimizer step are shared among processes and micro-batches."""

    batch_size: int
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step, over all processes and micro-batches."""
        return self.batch_size * self.world_size * self.accumulation

    def parts(self) -> Iterator[slice]:
        """The slices of a step that this process reads, one a micro-batch."""
        for micro_batch in range(self.accumulation):
            first = (micro_batch * self.world_size + self.rank) * self.batch_size
            yield slice(first, first + self.batch_size)


def _ignore_signals(worker: int) -> None:
    """A signal to the whole process group must not kill the readers: the main process decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _SeededCollate:
    """Collates under generators seeded by the first key of the batch, and passes the keys on as a tensor (B, 2)."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any] | None, seed: int):
        self.collate_fn, self.seed = collate_fn or default_collate, seed

    def __call__(self, keyed: tuple[list[Key], list[Any]]) -> tuple[torch.Tensor, Any]:
        keys, samples = keyed
        with preserved_rng():
            seed_cpu_rng(mix_seed(self.seed, "collate", *keys[0]))
            batch = self.collate_fn(samples)
        return torch.tensor(keys, dtype=torch.int64), batch


@contextmanager
def _naming_sample(index: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"This happened while reading sample {index} of the dataset.")
        raise


def training_batches(
    dataset: Any,
    batch_size: int,
    seed: int,
    *,
    start: int = 0,
    stop: int | None = None,
    position: Position | None = None,
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader of `(keys, batch)` from optimizer step `start` on; `keys` (B, 2) are the epoch and index of samples.

    A stream (no `len`) is read from its front by every process, each keeping its own samples, so that its order too
    depends on nothing but the seed and the epoch; `position` says where `start` lies in it, the samples before it
    are read and dropped, and at most one worker process reads it.

    The loader has a generator of its own: making its iterator draws nothing from the global generators.
    """
    collate = _SeededCollate(collate_fn, seed)
    generator = torch.Generator().manual_seed(mix_seed(seed, "loader"))
    common: dict[str, Any] = {
        "collate_fn": collate,
        "generator": generator,
        "pin_memory": pin_memory,
        "worker_init_fn": _ignore_signals,
    }
    if is_stream(dataset):
        split = StreamSplit(batch_size, rank, world_size, accumulation)
        stream = _SeededStream(dataset, split, seed, position or Position())
        return DataLoader(stream, batch_size=None, num_workers=min(num_workers, 1), **common)
    sampler = StepSampler(
        len(dataset),
        batch_size,
        seed,
        start=start,
        stop=stop,
        rank=rank,
        world_size=world_size,
        accumulation=accumulation,
    )
    return DataLoader(_SeededSamples(dataset, seed), batch_sampler=sampler, num_workers=num_workers, **common)


def next_batch(batches: Iterator[tuple[torch.Tensor, Any]]) -> tuple[torch.Tensor, Any]:
    """The next keys and batch of an iterator over [`training_batches`]; says so when a worker has died."""
    try:
        return next(batches)
    except (ConnectionError, EOFError) as error:
        raise RuntimeError(
            f"A DataLoader worker was killed while it handed over data ({type(error).__name__}), as happens when "
            "memory runs out. The checkpoints are intact: run the same command again, with fewer "
            "dataloader_num_workers if it happens again."
        ) from error
