"""The checkpoints that come with the package."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT = "emoji-64"
EMBEDDED = (DEFAULT_CHECKPOINT, "digits")


def default_checkpoint(name: str = DEFAULT_CHECKPOINT) -> str:
    """The folder of a checkpoint of the package.

    Args:
        name: `"emoji-64"`, a [`DallePipeline`], which `pipeline("text-to-image")` uses without a model argument; or
            `"digits"`, a class-conditional [`VQVAEPipeline`] of handwritten digits.

    Raises:
        ValueError: There is no checkpoint of this name.
        FileNotFoundError: This copy of the package was installed or cloned without its checkpoints.
    """
    if name not in EMBEDDED:
        raise ValueError(f"name must be one of {', '.join(map(repr, EMBEDDED))}, got {name!r}.")
    folder = CHECKPOINTS / name
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"The embedded checkpoint {folder} is missing (no model_index.json). Reinstall mosaics, or name one: "
            "`DallePipeline.from_pretrained('user/name or folder')`. `examples/train_dalle.py` trains one."
        )
    return str(folder)
