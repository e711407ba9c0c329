#!/usr/bin/env python
"""Trains the BPE tokenizer of the captions, shared by the DALL-E transformer and CLIP.

python examples/train_tokenizer.py                                          # the captions of the emoji scenes
python examples/train_tokenizer.py --dataset path/or/hub-id --vocab_size 16384 --max_length 256
"""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm

from mosaics.data import load_captions, train_tokenizer
from mosaics.training import parse_arguments

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "emoji" / "tokenizer.yaml"


@strict
@dataclass
class Arguments:
    """Where the captions come from, and the size of the vocabulary."""

    output_dir: str = field(default="outputs/tokenizer", metadata={"help": "Folder that the tokenizer is saved to."})
    dataset: str = field(
        default="emoji", metadata={"help": '"emoji", or an image folder, parquet file, webdataset or Hub data set.'}
    )
    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of EmojiScenes or load_captions, as JSON."}
    )
    num_captions: int = field(default=100_000, metadata={"help": "Captions to learn from, at most."})
    vocab_size: int = field(default=16_384, metadata={"help": "Tokens, the pad token included."})
    max_length: int = field(default=256, metadata={"help": "Text positions of the models that use the tokenizer."})


def captions_of(arguments: Arguments):
    options = arguments.dataset_options or {}
    if arguments.dataset == "emoji":
        from emoji.scenes import EmojiScenes  # the folder beside this script

        scenes = EmojiScenes("train", **options)
        return (scenes.describe(index)[1] for index in range(min(arguments.num_captions, len(scenes))))
    return islice(load_captions(arguments.dataset, split="train", **options), arguments.num_captions)


def main() -> None:
    (arguments,) = parse_arguments(Arguments, default_recipe=DEFAULT_RECIPE, description=__doc__)
    captions = list(tqdm(captions_of(arguments), desc="Reading captions", unit=" captions"))
    tokenizer = train_tokenizer(captions, arguments.vocab_size, arguments.max_length)
    tokenizer.save_pretrained(arguments.output_dir)
    lengths = [len(ids) for ids in tokenizer(captions[:10_000])["input_ids"]]
    print(f"Saved {len(tokenizer)} tokens to {arguments.output_dir}.")
    print(
        f"Tokens a caption: mean {sum(lengths) / len(lengths):.1f}, longest {max(lengths)} of {len(lengths)} captions."
    )


if __name__ == "__main__":
    main()
