#!/usr/bin/env python
"""Trains a small CLIP on captioned images: the reranker of DALL-E's candidates.

    accelerate launch examples/train_clip.py                                    # the emoji scenes, a laptop
    accelerate launch examples/train_clip.py --dataset path/or/hub-id --tokenizer outputs/tokenizer

The model is transformers' CLIPModel (https://arxiv.org/abs/2103.00020); it shares the DALL-E transformer's tokenizer.
"emoji-contrast" are groups of emoji scenes that differ in one statement, so that a batch holds what is hard to tell
apart; a batch of 12 is then 12 groups.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch.utils.data import default_collate
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel, set_seed

from degradation import break_pictures, degrade
from emoji.contrast import ContrastScenes
from emoji.scenes import EmojiScenes
from mosaics import default_checkpoint
from mosaics.data import load_eval_data, load_train_data, tokenize
from mosaics.pipelines.reranking import clip_pixels, clip_text_config, clip_text_inputs, load_clip
from mosaics.training import TrainingConfig, TrainingRun, parse_arguments

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "emoji" / "clip.yaml"
COMPOSERS = {"emoji": EmojiScenes, "emoji-contrast": ContrastScenes}
MAX_LOGIT_SCALE = 4.6052  # ln 100, Section 2.5 of the paper


@strict
@dataclass
class Arguments:
    """The data and the two towers."""

    dataset: str = field(
        default="emoji-contrast",
        metadata={"help": '"emoji-contrast", "emoji", or an image folder, parquet file, webdataset or Hub data set.'},
    )
    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of EmojiScenes or load_captioned_images, as JSON."}
    )
    eval_split: str | None = field(
        default=None, metadata={"help": 'Split of --dataset to evaluate on; "test" of a named data set if not given.'}
    )
    num_eval_samples: int = field(default=512, metadata={"help": "Held-out samples to evaluate on, at most."})
    image_size: int = field(default=64, metadata={"help": "Side of the square pictures in pixels."})
    tokenizer: str | None = field(default=None, metadata={"help": "Trained tokenizer; the embedded one if not given."})
    projection_dim: int = field(default=128, metadata={"help": "Size of the shared space."})
    text_config: dict[str, Any] | None = field(default=None, metadata={"help": "Fields of CLIPTextConfig, as JSON."})
    vision_config: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of CLIPVisionConfig, as JSON."}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": '"sdpa" or "eager"; eager is the fastest in bf16 on a CPU.'}
    )
    degrade: bool = field(
        default=False, metadata={"help": "Blur, shift and roughen the pictures in training, as generated ones are."}
    )
    broken_pictures: bool = field(
        default=False,
        metadata={"help": "Train also on pictures in pieces of two, which are wrong for every caption."},
    )
    clip: str | None = field(default=None, metadata={"help": "Trained CLIP of the same sizes to start from."})


def collate(samples: list) -> dict:
    """A batch of samples, or of groups of samples, whose members all become samples of the batch."""
    groups = [sample if isinstance(sample, list) else [sample] for sample in samples]
    return default_collate([sample for group in groups for sample in group])


def check_sizes(model: CLIPModel, arguments: Arguments, tokenizer: Any) -> None:
    """Refuses arguments that say something else than the trained model they go with."""
    wanted = {
        "text_config": {**(arguments.text_config or {}), "vocab_size": len(tokenizer)},
        "vision_config": {**(arguments.vision_config or {}), "image_size": arguments.image_size},
    }
    for tower, fields in wanted.items():
        for name, value in fields.items():
            found = getattr(getattr(model.config, tower), name)
            if found != value:
                raise ValueError(
                    f"the CLIP in {arguments.clip} has {tower}.{name}={found!r}, the arguments and the tokenizer say "
                    f"{value!r}: leave it out, or train a new CLIP."
                )


def build_model(arguments: Arguments, tokenizer: Any) -> CLIPModel:
    """The two towers, new or trained."""
    if arguments.clip is not None:
        model, _ = load_clip(arguments.clip)
        check_sizes(model, arguments, tokenizer)
        return model.train()
    text_config = clip_text_config(tokenizer, tokenizer.model_max_length, **(arguments.text_config or {}))
    vision_config = {"image_size": arguments.image_size, **(arguments.vision_config or {})}
    return CLIPModel(
        CLIPConfig(
            text_config=text_config.to_dict(), vision_config=vision_config, projection_dim=arguments.projection_dim
        )
    )


def pictures_of(batch: dict, arguments: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
    """What CLIP is trained on: pictures, behind them broken ones, and whether each may be told from its original."""
    pictures = batch["pixel_values"]
    usable = torch.ones(len(pictures), dtype=torch.bool, device=pictures.device)
    if arguments.broken_pictures:
        broken, visibly = break_pictures(pictures)
        pictures, usable = torch.cat([pictures, broken]), torch.cat([usable, visibly])
    return degrade(pictures) if arguments.degrade else pictures, usable


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, default_recipe=DEFAULT_RECIPE, description=__doc__)
    set_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer or Path(default_checkpoint()) / "tokenizer")
    model = build_model(arguments, tokenizer)
    if arguments.attn_implementation is not None:
        model.set_attn_implementation(arguments.attn_implementation)
    side = {"height": arguments.image_size, "width": arguments.image_size}
    processor = CLIPImageProcessorPil(size={"shortest_edge": arguments.image_size}, crop_size=side)
    source = (arguments.dataset, arguments.image_size, arguments.dataset_options, COMPOSERS)
    train_data = load_train_data(*source)
    eval_data = load_eval_data(*source, split=arguments.eval_split, num_samples=arguments.num_eval_samples)
    run = TrainingRun(
        config,
        model,
        train_data,
        eval_data,
        collate_fn=collate,
        processing_class=processor,
        script_arguments=arguments,
    )

    def contrast(captions: list[str], pictures: torch.Tensor, usable: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The symmetric contrastive loss, and how often a picture's own caption scores highest.

        Pictures beyond the captions are wrong for all of them.
        """
        input_ids = clip_text_inputs(tokenize(tokenizer, captions), tokenizer.pad_token_id).to(run.device)
        output = run.model(input_ids, clip_pixels(pictures, run.unwrapped_model, processor))
        own = torch.arange(len(input_ids), device=run.device)
        by_picture = output.logits_per_image[: len(own)].float()
        by_text = output.logits_per_text.float().masked_fill(~usable, -torch.inf)
        loss = (F.cross_entropy(by_text, own) + F.cross_entropy(by_picture, own)) / 2
        return loss, (by_picture.argmax(dim=1) == own).float().mean()

    for batch in run:
        loss, accuracy = contrast(batch["caption"], *pictures_of(batch, arguments))
        logit_scale = run.unwrapped_model.logit_scale
        run.optimize(loss, log={"accuracy": accuracy, "logit_scale": logit_scale.detach()})
        with torch.no_grad():
            logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if run.should_evaluate:
            for test_batch in run.evaluate_batches():
                pictures = test_batch["pixel_values"]
                every = torch.ones(len(pictures), dtype=torch.bool, device=pictures.device)
                test_loss, test_accuracy = contrast(test_batch["caption"], pictures, every)
                run.log_evaluation({"loss": test_loss, "accuracy": test_accuracy})


if __name__ == "__main__":
    main()
