#!/usr/bin/env python
"""Encodes pictures or sounds once, for the training of a transformer or another prior (stage 2).

    accelerate launch examples/encode_codes.py                                  # the emoji scenes
    accelerate launch examples/encode_codes.py --dataset path/or/hub-id --vqvae outputs/dvae --output_dir outputs/codes
    accelerate launch examples/encode_codes.py --dataset my/sounds --dataset_options '{"length": 16384}' \
        --vqvae outputs/audio-vqvae --output_dir outputs/codes

Writes parquet shards, shared among the processes: uint16 codes (of a VQ-VAE-2 those of all levels), captions and class
labels if the data have them. An interrupted run goes on where it stopped when the same command is given again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub.dataclasses import strict
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel

from emoji.scenes import EmojiScenes
from mosaics import AudioVQVAE, default_checkpoint
from mosaics.data import CodeGrid, CodesDescription, CodesWriter, SoundFolder, load_train_data
from mosaics.models.codebook_identity import level_codebook_ids
from mosaics.pipelines.levels import check_tokenizer
from mosaics.training import fair_share_of_cores, parse_arguments

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "emoji" / "codes.yaml"


@strict
@dataclass
class Arguments:
    """What to encode, with which tokenizer, and where to."""

    output_dir: str = field(default="outputs/codes", metadata={"help": "Folder of the shards."})
    vqvae: str | None = field(
        default=None,
        metadata={
            "help": "Trained DiscreteVAE, VQVAE, VQVAE2 or AudioVQVAE; the embedded DiscreteVAE if not given.",
            "aliases": ["--dvae"],
        },
    )
    dataset: str = field(
        default="emoji",
        metadata={
            "help": '"emoji", or an image folder, parquet file, webdataset or Hub data set; a folder of sounds.'
        },
    )
    dataset_options: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "More arguments of EmojiScenes, load_captioned_images or SoundFolder, as JSON."},
    )
    split: str = field(default="train", metadata={"help": "Split to encode."})
    num_samples: int | None = field(default=None, metadata={"help": "Samples to encode; all of them if not given."})
    shard_size: int = field(default=10_000, metadata={"help": "Samples in a shard; what an interruption can lose."})
    batch_size: int = field(default=64, metadata={"help": "Samples encoded at a time."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Worker processes that read samples."})
    mixed_precision: str = field(
        default="no", metadata={"help": '"no" or "bf16"; bf16 is faster and changes about one code in a hundred.'}
    )


def load_tokenizer(arguments: Arguments, device: torch.device) -> PreTrainedModel:
    """The tokenizer: any model that gives each sample one or more grids, or a sequence, of codes."""
    model = AutoModel.from_pretrained(arguments.vqvae or Path(default_checkpoint()) / "dvae").eval()
    if isinstance(model, AudioVQVAE):
        return model.to(device)
    check_tokenizer(model)
    return model.to(device, memory_format=torch.channels_last)  # the faster layout of convolutions


def load_data(arguments: Arguments, model: PreTrainedModel) -> Dataset:
    """What the tokenizer reads: pictures of its size, or sounds of its sampling rate."""
    options = arguments.dataset_options or {}
    if isinstance(model, AudioVQVAE):
        if "length" not in options:
            raise SystemExit("encode_codes.py: error: sounds need --dataset_options '{\"length\": ...}', in samples.")
        rate = model.config.sampling_rate
        return SoundFolder(arguments.dataset, sampling_rate=rate, split=arguments.split, **options)
    composers = {"emoji": EmojiScenes}
    return load_train_data(arguments.dataset, model.config.image_size, options, composers, split=arguments.split)


def encode(model: PreTrainedModel, batch: dict) -> tuple[torch.LongTensor, ...]:
    """The codes of a batch, for each level, top first."""
    samples = batch["waveform"] if isinstance(model, AudioVQVAE) else batch["pixel_values"]
    if samples.ndim == 4:
        samples = samples.contiguous(memory_format=torch.channels_last)
    indices = model.encode(samples.to(model.device))
    return indices if isinstance(indices, tuple) else (indices,)


def describe(arguments: Arguments, model: PreTrainedModel, data: Dataset, num_samples: int) -> CodesDescription:
    """What the folder will say of itself; the sizes of the grids are those of the first sample."""
    (first,) = DataLoader(Subset(data, [0]))
    with torch.inference_mode():
        sizes = [tuple(grid.shape[1:]) for grid in encode(model, first)]
    levels = zip(level_codebook_ids(model), sizes, strict=True)
    return CodesDescription(
        tuple(CodeGrid(identity, model.config.num_embeddings, size) for identity, size in levels),
        num_samples=num_samples,
        shard_size=arguments.shard_size,
        source=f"{arguments.dataset} {arguments.split} {arguments.dataset_options or {}}",
        class_names=getattr(data, "class_names", None),
    )


def main() -> None:
    (arguments,) = parse_arguments(Arguments, default_recipe=DEFAULT_RECIPE, description=__doc__)
    accelerator = Accelerator(mixed_precision=arguments.mixed_precision)
    model = load_tokenizer(arguments, accelerator.device)
    if accelerator.device.type == "cpu":  # accelerate launch by itself would leave one thread to a process
        torch.set_num_threads(fair_share_of_cores())
    data = load_data(arguments, model)
    num_samples = len(data) if arguments.num_samples is None else min(arguments.num_samples, len(data))
    description = describe(arguments, model, data, num_samples)
    share = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    writer = CodesWriter(arguments.output_dir, description, **share)
    with tqdm(total=num_samples, unit=" samples", disable=not accelerator.is_main_process) as progress:
        for shard in writer:
            progress.n = shard.start
            samples = Subset(data, range(shard.start, shard.stop))
            loader = DataLoader(samples, batch_size=arguments.batch_size, num_workers=arguments.dataloader_num_workers)
            for batch in loader:
                with torch.inference_mode(), accelerator.autocast():
                    indices = encode(model, batch)
                shard.append(indices, batch.get("caption"), class_labels=batch.get("class_labels"))
                progress.update(len(indices[0]))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        writer.finish()
        print(f"{num_samples} samples encoded in {arguments.output_dir}.")


if __name__ == "__main__":
    main()
