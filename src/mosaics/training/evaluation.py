"""One pass over the evaluation set, split over processes and leaving training as it was."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, default_collate

from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import is_stream
from mosaics.training.metrics import MetricAverages
from mosaics.training.processes import sum_over_processes
from mosaics.training.randomness import mix_seed, preserved_rng, seed_rng

__all__ = ["EvaluationPass"]


class EvaluationPass:
    """Reads every evaluation sample exactly once over all processes, and averages metrics over samples.

    All processes take the same number of batches, as a sharded model needs; a process whose share has run out takes
    a batch it has had before, with weight 0.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        dataset: Any,
        collate_fn: Callable[[list[Any]], Any] | None,
    ):
        if is_stream(dataset):
            raise TypeError(
                "eval_dataset must have a length and `dataset[i]`; take(n) of a stream and make it a list."
            )
        if len(dataset) == 0:
            raise ValueError("eval_dataset is empty; leave it out, or set eval_steps to None.")
        self.accelerator, self.dataset, self.collate_fn = accelerator, dataset, collate_fn or default_collate
        self.batch_size, self.seed = config.eval_batch_size or config.train_batch_size, config.seed
        self.num_workers = config.dataloader_num_workers
        self._averages, self._weight = MetricAverages(), 0

    def shares(self) -> list[tuple[list[int], int]]:
        """This process's batches: indices, and how many of them count (all, or none for a filler)."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        starts = range(0, len(self.dataset), self.batch_size)
        batches = [list(range(start, min(start + self.batch_size, len(self.dataset)))) for start in starts]
        rounds = -(-len(batches) // world)
        numbers = [turn * world + rank for turn in range(rounds)]
        return [(batches[n], len(batches[n])) if n < len(batches) else (batches[0], 0) for n in numbers]

    def batches(self, model: torch.nn.Module) -> Iterator[Any]:
        """Yields this process's batches on the device, with the model in evaluation mode and no gradients."""
        shares, device, was_training = self.shares(), self.accelerator.device, model.training
        model.eval()
        try:
            with preserved_rng(device), torch.no_grad():
                seed_rng(mix_seed(self.seed, "evaluation", self.accelerator.process_index))
                loader = DataLoader(
                    self.dataset,
                    batch_sampler=[indices for indices, _ in shares],
                    collate_fn=self.collate_fn,
                    num_workers=self.num_workers,
                    generator=torch.Generator().manual_seed(mix_seed(self.seed, "evaluation")),
                )
                for (_, weight), batch in zip(shares, loader, strict=True):
                    self._weight = weight
                    yield send_to_device(batch, device, non_blocking=True)
        finally:
            model.train(was_training)

    def add(self, values: Mapping[str, float | torch.Tensor]) -> None:
        """Takes the means of the batch in progress into the averages, weighted by its number of samples."""
        self._averages.add(values, float(self._weight))

    def results(self) -> dict[str, float]:
        """Means over all samples of all processes."""
        return self._averages.result(lambda table: sum_over_processes(self.accelerator, table))
