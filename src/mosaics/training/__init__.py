"""Training on top of Accelerate, with the loop left in the script."""

from mosaics.training.arguments import parse_arguments
from mosaics.training.averaging import IterateAverage
from mosaics.training.checkpointing import CheckpointError, find_checkpoint, save_checkpoint, verify_checkpoint
from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import StepSampler
from mosaics.training.finite import NonFiniteError
from mosaics.training.identity import ChangedSettingsError
from mosaics.training.image_grid import image_grid
from mosaics.training.model_settings import config_from_settings
from mosaics.training.processes import fair_share_of_cores
from mosaics.training.run import TrainingRun
from mosaics.training.schedules import (
    cosine_anneal,
    exponential_anneal,
    learning_rate_at,
    linear_anneal,
    linear_warmup,
)
from mosaics.training.signals import EXIT_CODE_STOPPED

__all__ = [
    "EXIT_CODE_STOPPED",
    "ChangedSettingsError",
    "CheckpointError",
    "IterateAverage",
    "NonFiniteError",
    "StepSampler",
    "TrainingConfig",
    "TrainingRun",
    "config_from_settings",
    "cosine_anneal",
    "exponential_anneal",
    "fair_share_of_cores",
    "find_checkpoint",
    "image_grid",
    "learning_rate_at",
    "linear_anneal",
    "linear_warmup",
    "parse_arguments",
    "save_checkpoint",
    "verify_checkpoint",
]
