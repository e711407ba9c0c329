"""The training loop's machinery; the loop itself stays in the script."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from mosaics.training import run_state
from mosaics.training.averaging import IterateAverage
from mosaics.training.checkpointing import prune_checkpoints, save_checkpoint
from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import Position, StepSampler, is_stream, training_batches
from mosaics.training.evaluation import EvaluationPass
from mosaics.training.finite import FiniteGuard
from mosaics.training.identity import dataset_fingerprint, run_settings, settings_hash
from mosaics.training.image_grid import image_grid
from mosaics.training.metrics import MetricAverages, MetricsFile, Throughput
from mosaics.training.optimizer import build_optimizer
from mosaics.training.processes import build_accelerator, sum_over_processes
from mosaics.training.publishing import push_to_hub, write_model
from mosaics.training.randomness import capture_rng, mix_seed, restore_rng, seed_rng
from mosaics.training.resuming import read_checkpoint
from mosaics.training.schedules import learning_rate_at
from mosaics.training.signals import EXIT_CODE_STOPPED, StopSignal

__all__ = ["TrainingRun"]

logger = logging.get_logger(__name__)


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
        processing_class: Any = None,
        script_arguments: Any = None,
    ):
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"TrainingRun expects a transformers PreTrainedModel, got a {type(model).__name__}.")
        self.config, self.output_dir = config, Path(config.output_dir)
        self.train_dataset, self.eval_dataset, self.collate_fn = train_dataset, eval_dataset, collate_fn
        self.processing_class = processing_class
        self.accelerator = build_accelerator(config)
        self.step, self._position = 0, Position()
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self._check_dataset()
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
        self._pending_rng: dict[str, torch.Tensor] | None = None
        self._keys: list[torch.Tensor] = []
        self._optimized = self._stepped = self._finished = False
        self._evaluation: EvaluationPass | None = None
        self._bar: tqdm | None = None
        seed_rng(mix_seed(config.seed, "noise", self.accelerator.process_index))
        self._resume()
        self._metrics_file = None
        if self.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self._metrics_file = MetricsFile(self.output_dir / "metrics.jsonl", self.step)
        if self.accelerator.log_with:
            self.accelerator.init_trackers(config.run_name or self.output_dir.name, config=_flat(self.settings))

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
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step, over all micro-batches and processes."""
        config = self.config
        return config.train_batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes

    @property
    def learning_rate(self) -> float:
        """Learning rate of the step in progress."""
        config = self.config
        return learning_rate_at(
            self.step,
            peak=config.learning_rate,
            end=config.learning_rate_end,
            warmup_steps=config.warmup_steps,
            decay_steps=config.decay_steps,
            schedule=config.lr_schedule,
        )

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
        with self._signal:
            batches = self._open_data()
            if self._pending_rng is not None:  # only now: making an iterator may draw random numbers
                restore_rng(self._pending_rng, self.device)
                self._pending_rng = None
            self.model.train()
            self._open_progress_bar()
            while self.step < self.config.max_steps:
                self._guard.begin_step()
                for _ in range(self.config.gradient_accumulation_steps):
                    keys, batch = next(batches)
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
        self._averages.add({"loss": loss, **(log or {})}, self.device, torch.isfinite(loss.detach()).reshape(()))
        if not self.accelerator.sync_gradients:
            return
        learning_rate = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        limit = self.config.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), float("inf") if limit is None else limit)
        accepted = self._guard.step(self.optimizer, norm, self.step, self._keys)
        self.optimizer.zero_grad()
        self.step += 1
        if self.average is not None:
            self.average.update(self.step, accepted)
        extra = {"grad_norm": norm, "learning_rate": learning_rate}
        self._averages.add(extra, self.device, torch.isfinite(norm).reshape(()))
        self._position = self._next_position()
        self._keys, self._stepped = [], True

    def _after_step(self) -> None:
        """Logging, checkpoints and stopping, at the boundary between two steps."""
        config = self.config
        self._throughput.add(self.samples_per_step)
        if self._bar is not None:
            self._bar.update(1)
        last = self.step >= config.max_steps
        if self.step % config.logging_steps == 0 or last:
            self._log_averages()
        stop = self._guard.agree(self._signal.received is not None)
        if last or stop or self.step % config.checkpointing_steps == 0:
            self.save_checkpoint()
        if stop and not last:
            self._close()
            self._say(f"Stopped by a signal at step {self.step}, checkpoint saved: run the same command to continue.")
            raise SystemExit(EXIT_CODE_STOPPED)

    def finish(self) -> None:
        """Writes the model to `output_dir`, closes the trackers and uploads; the loop calls it at its end."""
        if self._finished:
            return
        with self.averaged_weights():
            state = self.accelerator.get_state_dict(self.model)
        if self.is_main_process:
            write_model(self.unwrapped_model, state, self.output_dir, self.processing_class)
        self.accelerator.wait_for_everyone()
        self._finished = True
        self._close()
        if self.config.push_to_hub and self.is_main_process:
            self._say(f"Uploaded to {push_to_hub(self.config, self.step)}")
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------ evaluation and logging

    def evaluate_batches(self) -> Iterator[Any]:
        """Yields the evaluation set once, with the averaged weights in the model and no gradients.

        The random numbers drawn inside are the same at each evaluation, and training goes on as if none had been
        drawn. Report each batch with [`log_evaluation`]; at the end the averages are logged as `eval_<name>`.
        """
        if self.eval_dataset is None:
            raise ValueError("run.evaluate_batches needs TrainingRun(..., eval_dataset=...).")
        self._evaluation = EvaluationPass(self.config, self.accelerator, self.eval_dataset, self.collate_fn)
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
        if self._metrics_file is not None:
            self._metrics_file.write(self.step, values)
        if self.accelerator.log_with:
            self.accelerator.log(dict(values), step=self.step)

    def log_images(self, name: str, images: torch.Tensor, columns: int | None = None) -> Path | None:
        """Saves images (N, C, H, W) in [0, 1] as one grid, `output_dir/images/<name>-<step>.png`, and in the trackers.

        Returns:
            The path of the grid; `None` on other processes than the main one.
        """
        if not self.is_main_process:
            return None
        grid = image_grid(images, columns)
        path = self.output_dir / "images" / f"{name}-{self.step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(path)
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                pixels = torch.frombuffer(bytearray(grid.tobytes()), dtype=torch.uint8)
                tracker.log_images({name: pixels.view(1, grid.height, grid.width, 3).numpy()}, step=self.step)
        return path

    def _log_averages(self) -> None:
        values = self._averages.result(lambda table: sum_over_processes(self.accelerator, table))
        values |= {"epoch": self._position.epoch, "images_per_second": round(self._throughput.read(), 2)}
        values |= {"refused_steps": self._guard.refused} if self._guard.refused else {}
        self._averages.clear()
        self.log(values)
        if self._bar is not None:
            shown = {name: f"{value:.4g}" for name, value in values.items() if name not in ("epoch", "learning_rate")}
            self._bar.set_postfix(shown, refresh=False)

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self) -> Path:
        """Writes `output_dir/checkpoint-<step>`; normally the loop does.

        The folder loads with `from_pretrained` (the weights being trained), and its subfolder `averaged` too.
        """
        self._guard.settle()
        averages = {"state": self._averages.state(), "refused": self._guard.state()}
        state = {
            "step": self.step,
            "epoch": self._position.epoch,
            "step_in_epoch": self._position.step,
            "num_processes": self.accelerator.num_processes,
            "settings": self.settings,
            "settings_hash": settings_hash(self.settings),
            "metrics": averages["state"],
            "refused_steps": averages["refused"],
        }
        path = save_checkpoint(
            self.output_dir,
            self.step,
            lambda folder: self._write_checkpoint(folder, state),
            description={"settings_hash": state["settings_hash"], "torch": torch.__version__},
            is_main_process=self.is_main_process,
            barrier=self.accelerator.wait_for_everyone,
            needed_bytes=self._checkpoint_bytes(),
        )
        if self.is_main_process:
            prune_checkpoints(self.output_dir, self.config.checkpoints_total_limit, path)
        return path

    def _checkpoint_bytes(self) -> int:
        """Weights, two moments and the average, with some room."""
        weights = sum(p.numel() * max(p.element_size(), 4) for p in self.unwrapped_model.parameters())
        return 4 * weights + 2_000_000

    def _write_checkpoint(self, folder: Path, state: dict[str, Any]) -> None:
        accelerator, inner = self.accelerator, self.unwrapped_model
        weights = run_state.model_state(accelerator, self.model)
        moments = run_state.optimizer_state(accelerator, self.model, self.optimizer)
        averages = None if self.average is None else self.average.state()
        rng = capture_rng(self.device)
        run_state.write_tensors(folder / f"rng-{accelerator.process_index:05d}.safetensors", rng)
        if not self.is_main_process:
            return
        run_state.write_tensors(folder / "model.safetensors", weights)
        run_state.write_tensors(folder / "optimizer.safetensors", moments)
        inner.config.save_pretrained(folder)
        if averages is not None:
            (folder / "averaged").mkdir()
            run_state.write_tensors(folder / "averaged" / "model.safetensors", weights | averages)
            inner.config.save_pretrained(folder / "averaged")
        (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")

    def _resume(self) -> None:
        resumed = read_checkpoint(self.config, self.accelerator, self.model, self.settings, self.average is not None)
        if resumed is None:
            return
        run_state.load_model_state(self.accelerator, self.model, resumed.weights)
        run_state.load_optimizer_state(self.accelerator, self.model, self.optimizer, resumed.moments)
        if self.average is not None:
            self.average.load_state(resumed.averages)
        self.step, self._position = resumed.step, resumed.position
        self._averages.load_state(resumed.metrics, self.device)
        self._guard.load_state(resumed.refused_steps)
        self._pending_rng = resumed.rng
        if resumed.rng is None:
            seed_rng(mix_seed(self.config.seed, "noise", self.accelerator.process_index, self.step))
        self._say(f"Resumed from {resumed.path} at step {self.step}.")

    # ------------------------------------------------------------------ data, progress bar, end

    def _check_dataset(self) -> None:
        """Says that a dataset is too small before anything else is built."""
        if not is_stream(self.train_dataset):
            self._sampler = StepSampler(len(self.train_dataset), self.samples_per_step, self.config.seed)

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
        if not is_stream(self.train_dataset):
            return self._sampler.position(self.step)
        epoch, index = self._keys[-1][-1].tolist()
        return Position(epoch, index // self.samples_per_step + 1)

    def _open_progress_bar(self) -> None:
        if self.config.progress_bar and self.is_main_process:
            self._bar = tqdm(total=self.config.max_steps, initial=self.step, unit="step", dynamic_ncols=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self.accelerator.log_with:
            self.accelerator.end_training()

    def _say(self, message: str) -> None:
        if self.is_main_process:
            tqdm.write(message) if self.config.progress_bar else logger.info(message)


def _flat(settings: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Settings as values that every tracker accepts."""
    return {k: v if isinstance(v, (int, float, str, bool)) else json.dumps(v) for k, v in settings.items()}
