"""The checkpoint that comes with the package."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT = "emoji-64"


def default_checkpoint() -> str:
    """The folder of the embedded DALL-E pipeline, which `pipeline("text-to-image")` uses without a model argument.

    Raises:
        FileNotFoundError: This copy of the package was installed or cloned without its checkpoint.
    """
    folder = CHECKPOINTS / DEFAULT_CHECKPOINT
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"The embedded checkpoint {folder} is missing (no model_index.json). Reinstall mosaics, or name one: "
            "`DallePipeline.from_pretrained('user/name or folder')`. `examples/train_dalle.py` trains one."
        )
    return str(folder)
