"""The training loop's machinery; the loop itself stays in the script."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from mosaics.training import run_state
from mosaics.training.averaging import IterateAverage
from mosaics.training.checkpointing import prune_checkpoints, save_checkpoint
from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import Position, StepSampler, is_stream, next_batch, training_batches
from mosaics.training.evaluation import EvaluationPass
from mosaics.training.finite import FiniteGuard
from mosaics.training.identity import dataset_fingerprint, run_settings, settings_hash
from mosaics.training.metrics import MetricAverages, Throughput
from mosaics.training.optimizer import build_optimizer, clip_gradients, scheduled_learning_rate
from mosaics.training.output_lock import OutputLock
from mosaics.training.processes import build_accelerator, sum_over_processes, unwrap
from mosaics.training.publishing import push_to_hub, write_model
from mosaics.training.randomness import mix_seed, restore_rng, seed_rng
from mosaics.training.reporting import Reporter
from mosaics.training.signals import EXIT_CODE_STOPPED, StopSignal
from mosaics.training.snapshots import checkpoint_bytes, read_snapshot, write_snapshot

__all__ = ["TrainingRun"]


class TrainingRun:
    r"""Everything around a training loop that has one right answer; the forward pass stays in the script.

    Iterating yields micro-batches, on the device, from the resumed step to `config.max_steps`:

    ```python
    run = TrainingRun(config, model, train_dataset, eval_dataset)
    for batch in run:
        output = run.model(batch["pixel_values"])
        run.optimize(output.loss, log={"kl": output.kl})
        if run.should_evaluate:
            for batch in run.evaluate_batches():
                run.log_evaluation({"loss": run.model(batch["pixel_values"]).loss})
    ```

    It rests on `accelerate.Accelerator`, so `accelerate launch` and its configuration decide about processes, FSDP2
    and mixed precision. It owns:

    - the order of the data, a pure function of (seed, epoch, step, rank, world size);
    - checkpoints in `output_dir/checkpoint-<step>`, whole or absent, and resuming from the newest that verifies; on
      one machine a resumed run equals an uninterrupted one bit for bit;
    - a refusal of steps whose loss or gradient is not finite on any process: parameters, optimizer, average and
      buffers stay as they were;
    - SIGTERM and SIGINT: a checkpoint, then `SystemExit` with code 75; a second signal exits at once;
    - the average of the weights, `metrics.jsonl`, trackers, the progress bar, sample images, upload to the Hub.

    At the end `output_dir` itself holds what `from_pretrained` loads: the averaged weights if averaging is on.
    The loop always ends with a checkpoint, so running a finished command again trains nothing.

    Args:
        config: How to train.
        model: A `PreTrainedModel`. Call `transformers.set_seed(config.seed)` before building it.
        train_dataset: `len(dataset)` and `dataset[i]`, or a stream (`iter(dataset)`, with `set_epoch` if it shuffles).
        eval_dataset: Map-style dataset for [`evaluate_batches`].
        collate_fn: Makes a batch of a list of samples; `torch.utils.data.default_collate` by default.
        eval_collate_fn: The same for the evaluation set; `collate_fn` by default.
        processing_class: A tokenizer or processor (anything with `save_pretrained`) to save beside the model.
        script_arguments: The script's own settings (a mapping, a dataclass or several): resuming with other values
            is an error, like a change of the fields of `config` that matter.

    Attributes:
        model: The model to call: prepared by Accelerate, with autocast in its forward pass.
        step: Optimizer steps taken so far. With gradient accumulation it stays the same between micro-batches.
        accelerator: The `accelerate.Accelerator`.

    Raises:
        CheckpointError: If there are checkpoints in `output_dir` and none is usable.
        ChangedSettingsError: If the checkpoint was trained with other settings; see `config.allow_changed`.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: PreTrainedModel,
        train_dataset: Any,
        eval_dataset: Any = None,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        eval_collate_fn: Callable[[list[Any]], Any] | None = None,
        processing_class: Any = None,
        script_arguments: Any = None,
    ):
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"TrainingRun expects a transformers PreTrainedModel, got a {type(model).__name__}.")
        self.config, self.output_dir = config, Path(config.output_dir)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.collate_fn, self.eval_collate_fn = collate_fn, eval_collate_fn or collate_fn
        self.processing_class = processing_class
        self.accelerator = build_accelerator(config)
        self.step, self._position = 0, Position()
        self._sampler = None  # says that a dataset is too small before anything else is built
        if not is_stream(train_dataset):
            self._sampler = StepSampler(len(train_dataset), self.samples_per_step, config.seed)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self.settings = run_settings(
            config,
            model,
            samples_per_step=self.samples_per_step,
            mixed_precision=self.accelerator.mixed_precision,
            fingerprint=dataset_fingerprint(train_dataset, config.seed),
            script_arguments=script_arguments,
        )
        optimizer = build_optimizer(model, config, self.device)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.average = None if config.ema_decay is None else IterateAverage(self.unwrapped_model, config.ema_decay)
        self._guard = FiniteGuard(config, self.accelerator, self.unwrapped_model)
        self._averages, self._throughput, self._signal = MetricAverages(), Throughput(), StopSignal()
        self._keys: list[torch.Tensor] = []
        self._optimized = self._stepped = self._finished = False
        self._evaluation: EvaluationPass | None = None
        self._pending_rng: dict[str, torch.Tensor] | None = None
        seed_rng(mix_seed(config.seed, "noise", self.accelerator.process_index))
        resumed_from = self._resume()
        self._reporter = Reporter(config, self.accelerator, self.step, self.settings)
        if resumed_from is not None:
            self._reporter.say(f"Resumed from {resumed_from} at step {self.step}.")

    # ------------------------------------------------------------------ what a script may ask

    @property
    def device(self) -> torch.device:
        """Where batches are put."""
        return self.accelerator.device

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.accelerator.is_main_process

    @property
    def unwrapped_model(self) -> PreTrainedModel:
        """The model as it was passed in, for methods other than the forward pass (`encode`, `generate`)."""
        return unwrap(self.accelerator, self.model)

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step, over all micro-batches and processes."""
        config = self.config
        return config.train_batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes

    @property
    def learning_rate(self) -> float:
        """Learning rate of the step in progress."""
        return scheduled_learning_rate(self.config, self.step)

    @property
    def should_evaluate(self) -> bool:
        """True once after every `eval_steps`-th optimizer step, and after the last one."""
        if self.config.eval_steps is None or not self._stepped:
            return False
        return self.step % self.config.eval_steps == 0 or self.step == self.config.max_steps

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Inside `with run.averaged_weights():` the model has the averaged weights, if averaging is on."""
        return nullcontext() if self.average is None else self.average.applied()

    # ------------------------------------------------------------------ the loop

    def __iter__(self) -> Iterator[Any]:
        """Yields micro-batches until `max_steps`; see the class."""
        if self._finished:
            return
        with self._signal, OutputLock(self.output_dir, self.is_main_process):
            batches = self._open_data()
            if self._pending_rng is not None:  # only now: making an iterator may draw random numbers
                restore_rng(self._pending_rng, self.device)
                self._pending_rng = None
            self.model.train()
            self._keys, self.accelerator.step = [], 0  # an earlier loop may have broken off within a step
            self.optimizer.optimizer.zero_grad()
            self._reporter.begin(self.step)
            self._throughput.restart()
            while self.step < self.config.max_steps:
                self._guard.begin_step()
                for _ in range(self.config.gradient_accumulation_steps):
                    keys, batch = next_batch(batches)
                    self._keys.append(keys)
                    self._optimized = self._stepped = False
                    with self.accelerator.accumulate(self.model):
                        yield send_to_device(batch, self.device, non_blocking=True)
                    if not self._optimized:
                        raise RuntimeError("The loop must call run.optimize(loss) once for every batch; it did not.")
                self._after_step()
            self.finish()

    def optimize(self, loss: torch.Tensor, log: Mapping[str, float | torch.Tensor] | None = None) -> None:
        """Back-propagates a loss and, at the last micro-batch of a step, updates the weights and their average.

        Args:
            loss: One number, the mean over the micro-batch.
            log: Numbers or one-element tensors to average and log besides "loss"; reading them waits for nothing.

        Raises:
            NonFiniteError: With `nonfinite=stop`, or after too many refused steps in a row with `nonfinite=skip`.
        """
        if self._optimized:
            raise RuntimeError("run.optimize was called twice for one batch; add the losses up and call it once.")
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise ValueError(f"run.optimize expects the loss as a tensor with one element, got {loss!r}.")
        self._optimized = True
        self._guard.watch(loss)
        self.accelerator.backward(loss)
        self._averages.add({"loss": loss, **(log or {})}, torch.isfinite(loss.detach()))
        if not self.accelerator.sync_gradients:
            return
        learning_rate = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = clip_gradients(self.accelerator, self.model, self.config.max_grad_norm)
        accepted = self._guard.step(self.optimizer, norm, self.step, self._keys, self._signal.received is not None)
        self.optimizer.zero_grad()
        self.step += 1
        if self.average is not None:
            self.average.update(self.step, accepted)
        self._averages.add({"grad_norm": norm, "learning_rate": learning_rate}, torch.isfinite(norm))
        self._position = self._next_position()
        self._keys, self._stepped = [], True

    def _after_step(self) -> None:
        """Logging, checkpoints and stopping, at the boundary between two steps."""
        config = self.config
        self._throughput.add(self.samples_per_step)
        self._reporter.advance_bar()
        last = self.step >= config.max_steps
        if self.step % config.logging_steps == 0 or last:
            self._log_averages()
        stop = self._guard.stop_agreed
        if self.accelerator.num_processes == 1:
            stop = self._signal.received is not None  # nobody to agree with
        if last or stop or self.step % config.checkpointing_steps == 0:
            self.save_checkpoint()
        if stop and not last:
            self._reporter.close()
            where = f"{self.output_dir} holds the checkpoint of step {self.step}"
            self._reporter.say(f"Stopped by a signal; {where}. Run the same command to continue.")
            raise SystemExit(EXIT_CODE_STOPPED)

    def finish(self) -> None:
        """Writes the model to `output_dir`, closes the trackers and uploads; the loop calls it at its end."""
        if self._finished:
            return
        self._guard.settle()
        self._reporter.close_bar()
        with self.averaged_weights():
            state = self.accelerator.get_state_dict(self.model)  # may share memory with the model: write it in here
            if self.is_main_process:
                write_model(self.unwrapped_model, state, self.output_dir, self.processing_class)
        self.accelerator.wait_for_everyone()
        self._finished = True
        self._reporter.draw_curves()
        self._reporter.close()
        if self.config.push_to_hub and self.is_main_process:
            self._reporter.say(f"Uploaded to {push_to_hub(self.config, self.unwrapped_model, self.step)}")
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------ evaluation and logging

    def evaluate_batches(self) -> Iterator[Any]:
        """Yields the evaluation set once, with the averaged weights in the model and no gradients.

        The random numbers drawn inside are the same at each evaluation, and training goes on as if none had been
        drawn. Report each batch with [`log_evaluation`]; at the end the averages are logged as `eval_<name>`.
        """
        if self.eval_dataset is None:
            raise ValueError("run.evaluate_batches needs TrainingRun(..., eval_dataset=...).")
        self._evaluation = EvaluationPass(self.config, self.accelerator, self.eval_dataset, self.eval_collate_fn)
        with self.averaged_weights():
            yield from self._evaluation.batches(self.model)
        results = self._evaluation.results()
        self._evaluation = None
        self.log({f"eval_{name}": value for name, value in results.items()})

    def log_evaluation(self, values: Mapping[str, float | torch.Tensor]) -> None:
        """Takes the mean values of the evaluation batch in progress into the averages of the evaluation."""
        if self._evaluation is None:
            raise RuntimeError("run.log_evaluation belongs inside `for batch in run.evaluate_batches():`.")
        self._evaluation.add(values)

    def log(self, values: Mapping[str, float]) -> None:
        """Writes numbers to `metrics.jsonl` and the trackers under the current step."""
        self._reporter.log(self.step, values)

    def log_images(self, name: str, images: torch.Tensor, columns: int | None = None) -> Path | None:
        """Saves images (N, C, H, W) in [0, 1] as one grid, `output_dir/images/<name>-<step>.png`, and in the trackers.

        Returns:
            The path of the grid; `None` on other processes than the main one.
        """
        return self._reporter.log_images(self.step, name, images, columns)

    def _log_averages(self) -> None:
        values = self._averages.result(lambda table: sum_over_processes(self.accelerator, table))
        values |= {"epoch": self._position.epoch, "images_per_second": round(self._throughput.read(), 2)}
        values |= {"refused_steps": self._guard.refused} if self._guard.refused else {}
        self._averages.clear()
        self.log(values)
        self._reporter.show(values)

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self) -> Path:
        """Writes `output_dir/checkpoint-<step>`; normally the loop does.

        The folder loads with `from_pretrained` (the weights being trained), and its subfolder `averaged` too.
        """
        self._guard.settle()
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "epoch": self._position.epoch,
            "step_in_epoch": self._position.step,
            "num_processes": self.accelerator.num_processes,
            "settings": self.settings,
            "settings_hash": settings_hash(self.settings),
            "metrics": self._averages.state(),
            "refused_steps": self._guard.state(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        path = save_checkpoint(
            self.output_dir,
            self.step,
            lambda folder: write_snapshot(folder, self.accelerator, self.model, self.optimizer, self.average, state),
            description={"settings_hash": state["settings_hash"], "torch": torch.__version__},
            is_main_process=self.is_main_process,
            barrier=self.accelerator.wait_for_everyone,
            needed_bytes=checkpoint_bytes(self.unwrapped_model),
        )
        self._reporter.checkpointed(self.step)
        if self.is_main_process:
            prune_checkpoints(self.output_dir, self.config.checkpoints_total_limit, path)
        return path

    def _resume(self) -> Path | None:
        """Puts back the state of a checkpoint, all but the random generators, and returns its path."""
        found = read_snapshot(self.config, self.accelerator, self.model, self.settings, self.average is not None)
        if found is None:
            return None
        run_state.load_model_state(self.accelerator, self.model, found.weights)
        run_state.load_optimizer_state(self.accelerator, self.model, self.optimizer, found.moments)
        if self.average is not None:
            self.average.load_state(found.averages)
        if self.accelerator.scaler is not None and found.scaler is not None:
            self.accelerator.scaler.load_state_dict(found.scaler)
        self.step, self._position = found.step, found.position
        self._averages.load_state(found.metrics, self.device)
        self._guard.load_state(found.refused_steps)
        self._pending_rng = found.rng
        if found.rng is None:
            seed_rng(mix_seed(self.config.seed, "noise", self.accelerator.process_index, self.step))
        return found.path

    # ------------------------------------------------------------------ data

    def _open_data(self) -> Iterator[tuple[torch.Tensor, Any]]:
        config = self.config
        return iter(
            training_batches(
                self.train_dataset,
                config.train_batch_size,
                config.seed,
                start=self.step,
                stop=config.max_steps,
                position=self._position,
                rank=self.accelerator.process_index,
                world_size=self.accelerator.num_processes,
                accumulation=config.gradient_accumulation_steps,
                collate_fn=self.collate_fn,
                num_workers=config.dataloader_num_workers,
                pin_memory=self.device.type == "cuda",
            )
        )

    def _next_position(self) -> Position:
        """Where the next step reads."""
        if self._sampler is not None:
            return self._sampler.position(self.step)
        epoch, index = self._keys[-1][-1].tolist()
        return Position(epoch, index // self.samples_per_step + 1)
