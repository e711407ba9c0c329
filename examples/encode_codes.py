#!/usr/bin/env python
"""Encodes captioned images once, for the training of the DALL-E transformer (stage 2).

    accelerate launch examples/encode_codes.py                                  # the emoji scenes
    accelerate launch examples/encode_codes.py --dataset path/or/hub-id --dvae outputs/dvae --output_dir outputs/codes

Writes parquet shards of uint16 code grids and captions, shared among the processes. An interrupted run goes on where
it stopped when the same command is given again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub.dataclasses import strict
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel

from mosaics import VQVAE, DiscreteVAE, default_checkpoint
from mosaics.data import CodesDescription, CodesWriter, load_train_data
from mosaics.models.codebook_identity import codebook_id
from mosaics.training import fair_share_of_cores, parse_arguments

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "emoji" / "codes.yaml"


@strict
@dataclass
class Arguments:
    """What to encode, with which tokenizer, and where to."""

    output_dir: str = field(default="outputs/codes", metadata={"help": "Folder of the shards."})
    dvae: str | None = field(
        default=None, metadata={"help": "Trained DiscreteVAE or VQVAE; the embedded one if not given."}
    )
    dataset: str = field(
        default="emoji", metadata={"help": '"emoji", or an image folder, parquet file, webdataset or Hub data set.'}
    )
    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of EmojiScenes or load_captioned_images, as JSON."}
    )
    split: str = field(default="train", metadata={"help": "Split to encode."})
    num_samples: int | None = field(default=None, metadata={"help": "Samples to encode; all of them if not given."})
    shard_size: int = field(default=10_000, metadata={"help": "Samples in a shard; what an interruption can lose."})
    batch_size: int = field(default=64, metadata={"help": "Images encoded at a time."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Worker processes that read images."})
    mixed_precision: str = field(
        default="no", metadata={"help": '"no" or "bf16"; bf16 is faster and changes about one code in a hundred.'}
    )


def emoji_scenes(split: str, **options):
    """The captioned emoji scenes of the folder beside this script."""
    from emoji.scenes import EmojiScenes

    return EmojiScenes(split, **options)


def load_tokenizer(arguments: Arguments) -> PreTrainedModel:
    """The image tokenizer: any model that gives each picture one grid of codes."""
    model = AutoModel.from_pretrained(arguments.dvae or Path(default_checkpoint()) / "dvae").eval()
    if not isinstance(model, DiscreteVAE | VQVAE):
        raise SystemExit(f"encode_codes.py: error: --dvae must be a DiscreteVAE or VQVAE, got {type(model).__name__}.")
    return model


def main() -> None:
    (arguments,) = parse_arguments(Arguments, default_recipe=DEFAULT_RECIPE, description=__doc__)
    accelerator = Accelerator(mixed_precision=arguments.mixed_precision)
    dvae = load_tokenizer(arguments)
    dvae.to(accelerator.device, memory_format=torch.channels_last)  # the faster layout of convolutions
    if accelerator.device.type == "cpu":  # accelerate launch by itself would leave one thread to a process
        torch.set_num_threads(fair_share_of_cores())
    source = (arguments.dataset, dvae.config.image_size, arguments.dataset_options, {"emoji": emoji_scenes})
    data = load_train_data(*source, split=arguments.split)
    num_samples = len(data) if arguments.num_samples is None else min(arguments.num_samples, len(data))
    description = CodesDescription(
        codebook_id=codebook_id(dvae),
        num_embeddings=dvae.config.num_embeddings,
        grid_size=(dvae.config.grid_size, dvae.config.grid_size),
        num_samples=num_samples,
        shard_size=arguments.shard_size,
        source=f"{arguments.dataset} {arguments.split} {arguments.dataset_options or {}}",
    )
    writer = CodesWriter(
        arguments.output_dir, description, rank=accelerator.process_index, world_size=accelerator.num_processes
    )
    with tqdm(total=num_samples, unit=" images", disable=not accelerator.is_main_process) as progress:
        for shard in writer:
            progress.n = shard.start
            samples = Subset(data, range(shard.start, shard.stop))
            loader = DataLoader(samples, batch_size=arguments.batch_size, num_workers=arguments.dataloader_num_workers)
            for batch in loader:
                with torch.inference_mode(), accelerator.autocast():
                    pixels = batch["pixel_values"].to(accelerator.device, memory_format=torch.channels_last)
                    indices = dvae.encode(pixels)
                shard.append(indices, batch["caption"])
                progress.update(len(indices))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        writer.finish()
        print(f"{num_samples} images encoded in {arguments.output_dir}.")


if __name__ == "__main__":
    main()
