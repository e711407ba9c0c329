"""What a finished run leaves behind: a folder that `from_pretrained` loads, and its copy on the Hub."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mosaics.cards import model_card
from mosaics.cards.run_folder import read_run
from mosaics.hub.errors import HubError
from mosaics.hub.upload import upload_folder
from mosaics.training.config import TrainingConfig

__all__ = ["push_to_hub", "write_model"]

NOT_UPLOADED = [
    "checkpoint-*",
    "checkpoint-*/**",
    "damaged-*",
    "damaged-*/**",
    ".tmp-*",
    ".tmp-*/**",
    "logs/**",
    ".lock",
]


def write_model(
    model: PreTrainedModel, state: dict[str, torch.Tensor], folder: Path, processing_class: Any = None
) -> None:
    """Saves a model beside the checkpoints, by way of a temporary folder, so that no file is ever half-written."""
    temporary = folder / ".tmp-model"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save_pretrained(temporary, state_dict=state)
    if processing_class is not None:
        processing_class.save_pretrained(temporary)
    for file in sorted(temporary.iterdir(), key=lambda path: path.suffix == ".json"):  # weights before their config
        os.replace(file, folder / file.name)
    temporary.rmdir()


def push_to_hub(config: TrainingConfig, model: PreTrainedModel, step: int) -> str:
    """Uploads `output_dir` without its checkpoints, with a model card, and returns the address of the repository.

    Raises:
        RuntimeError: If the upload fails. Everything is still in `output_dir`; the message says how to try again.
    """
    folder = Path(config.output_dir)
    name, runs = config.hub_model_id or folder.resolve().name, [run] if (run := read_run(folder)) else []
    try:
        return upload_folder(
            folder,
            name,
            lambda repo_id: model_card(model, repo_id, runs=runs, license=config.hub_license),
            commit_message=f"Train to step {step}",
            private=config.hub_private,
            ignore_patterns=NOT_UPLOADED,
        )
    except HubError as error:
        raise RuntimeError(
            f"The upload of {folder} to {name!r} failed: {error} The trained model is in {folder}: run the same "
            "command again to upload it."
        ) from error
