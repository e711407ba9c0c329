"""What makes a folder of converted parts a `DallePipeline`."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase


def write_dalle_pipeline(
    folder: Path, tokenizer: PreTrainedTokenizerBase, image_tokenizer: str, transformer: str = "DalleTransformer"
) -> None:
    """Writes model_index.json, and the config.json that transformers looks for.

    Args:
        folder: Holds `tokenizer`, `transformer` and `dvae`.
        tokenizer: The text tokenizer.
        image_tokenizer: Name of the class of `dvae`.
        transformer: Name of the class of `transformer`.
    """
    import diffusers  # here, because it imports a good part of transformers

    index = {
        "_class_name": "DallePipeline",
        "_diffusers_version": diffusers.__version__,
        "clip": [None, None],
        "clip_processor": [None, None],
        "dvae": ["mosaics", image_tokenizer],
        "guidance_scale": 1.0,
        "temperature": 1.0,
        "tokenizer": ["transformers", type(tokenizer).__name__],
        "transformer": ["mosaics", transformer],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config = {"model_type": "mosaics_dalle_pipeline"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
