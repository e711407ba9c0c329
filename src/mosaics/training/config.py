"""The arguments of a training run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

__all__ = ["TrainingConfig"]


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@strict
@dataclass
class TrainingConfig:
    """How to train: everything a [`TrainingRun`] needs that is neither the model nor the data.

    The names are those of the Hugging Face example scripts. Each field carries its explanation in its `help`, which
    [`parse_arguments`] prints. Types are checked: a wrong type or an impossible value is a `ValueError` that names
    the field.

    Example:
        >>> config = TrainingConfig(output_dir="outputs/dvae", max_steps=1000, train_batch_size=32)
        >>> config.learning_rate
        0.0003
    """

    output_dir: str = _option(
        "outputs/run", "Folder for checkpoints, metrics.jsonl and images; ends as what `from_pretrained` loads."
    )
    max_steps: int = _option(10_000, "Optimizer steps to train for.")
    train_batch_size: int = _option(16, "Samples in one micro-batch of one process.")
    eval_batch_size: int | None = _option(None, "Samples in one evaluation batch of one process (train_batch_size).")
    gradient_accumulation_steps: int = _option(1, "Micro-batches whose gradients are averaged for one step.")
    seed: int = _option(0, "Seed of the data order and of the noise in training.")

    learning_rate: float = _option(3e-4, "Learning rate at the end of the warm-up.")
    learning_rate_end: float = _option(0.0, "Learning rate at the end of the decay.")
    lr_schedule: Literal["cosine", "linear", "constant"] = _option("cosine", "Decay of the learning rate.")
    warmup_steps: int = _option(100, "Optimizer steps of linear warm-up.")
    lr_decay_start: int | None = _option(
        None, "Step at which the decay begins (after the warm-up); a longer run can start from a checkpoint before it."
    )
    lr_decay_steps: int | None = _option(None, "Step at which the decay is complete (max_steps).")
    optimizer: Literal["adamw", "muon"] = _option(
        "adamw", "muon: Muon for the matrices of linear layers, AdamW for the rest; fewer steps for transformers."
    )
    adam_beta1: float = _option(0.9, "AdamW: decay of the mean of the gradients.")
    adam_beta2: float = _option(0.99, "AdamW: decay of the mean of their squares.")
    adam_epsilon: float = _option(1e-8, "AdamW: added to the denominator.")
    weight_decay: float = _option(0.01, "AdamW: decoupled weight decay; spares norms, biases and embeddings.")
    max_grad_norm: float | None = _option(1.0, "Clip the norm of the gradient to this; None does not clip.")
    ema_decay: float | None = _option(0.999, "Decay of the average of the weights that is saved; None: no averaging.")

    nonfinite: Literal["stop", "skip"] = _option(
        "stop", "When a loss or gradient is NaN or infinite: stop with an error, or skip the step."
    )
    max_nonfinite_steps: int = _option(5, "With nonfinite=skip: stop after this many skipped steps in a row.")

    mixed_precision: Literal["no", "bf16", "fp16"] | None = _option(
        None, "Autocast type; bf16 also works on CPU. By default what `accelerate launch` says, else no."
    )
    matmul_precision: Literal["highest", "high", "medium"] | None = _option(
        None, 'Passed to torch.set_float32_matmul_precision; by default "medium" on CPU, "high" elsewhere.'
    )
    cpu_threads: int | None = _option(
        None, "On the CPU, threads that compute in each process; by default the machine's cores are shared evenly."
    )
    gradient_checkpointing: bool = _option(False, "Recompute activations in the backward pass to save memory.")
    torch_compile: bool = _option(False, "Compile the model with torch.compile (inductor).")
    dataloader_num_workers: int = _option(0, "Worker processes that read data; does not change what is read.")

    checkpointing_steps: int = _option(1000, "Save a checkpoint every this many optimizer steps, and at the end.")
    checkpoints_total_limit: int | None = _option(2, "Checkpoints to keep, at least 1; None keeps all.")
    resume_from_checkpoint: str = _option(
        "latest", '"latest": the newest good checkpoint in output_dir, if any; "none": start anew; or a folder.'
    )
    allow_changed: list[str] | None = field(
        default=None,
        metadata={"help": 'Settings that may differ from those of the resumed checkpoint, by name; or "all".'},
    )

    logging_steps: int = _option(50, "Log averages every this many optimizer steps.")
    eval_steps: int | None = _option(None, "Evaluate every this many optimizer steps, and at the end; None: never.")
    report_to: str = _option("none", 'Trackers besides metrics.jsonl: "tensorboard", "wandb", ..., comma-separated.')
    run_name: str | None = _option(None, "Name of the run in the trackers (the name of output_dir).")
    progress_bar: bool = _option(True, "Show a progress bar.")
    cpu: bool = _option(False, "Train on the CPU even if there is an accelerator.")

    push_to_hub: bool = _option(False, "Upload output_dir to the Hub at the end.")
    hub_model_id: str | None = _option(None, "Repository to upload to (the name of output_dir, under your account).")
    hub_private: bool = _option(False, "Create the repository as a private one.")
    hub_license: str | None = _option(None, "Licence of the weights for the model card, such as apache-2.0.")

    def __post_init__(self) -> None:
        """Checks ranges; types are checked by `strict`."""
        for name in (
            "max_steps",
            "train_batch_size",
            "eval_batch_size",
            "gradient_accumulation_steps",
            "lr_decay_start",
            "lr_decay_steps",
            "max_nonfinite_steps",
            "checkpointing_steps",
            "checkpoints_total_limit",
            "logging_steps",
            "eval_steps",
            "cpu_threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        for name in ("seed", "warmup_steps", "dataloader_num_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        for name in ("learning_rate", "learning_rate_end", "weight_decay", "adam_epsilon"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}.")
        for name in ("adam_beta1", "adam_beta2", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}.")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, or None for no clipping, got {self.max_grad_norm}.")
        if not self.output_dir:
            raise ValueError("output_dir must be the path of a folder, got an empty string.")

    @property
    def decay_steps(self) -> int:
        """Step at which the learning rate reaches `learning_rate_end`."""
        return self.lr_decay_steps if self.lr_decay_steps is not None else self.max_steps
