#!/usr/bin/env python
"""Trains the DALL-E transformer on captions and image codes (stage 2), and assembles the pipeline.

    accelerate launch examples/train_dalle.py                                   # the emoji scenes, a laptop
    accelerate launch examples/train_dalle.py --codes outputs/codes --dvae outputs/dvae --tokenizer outputs/tokenizer
    accelerate launch examples/train_dalle.py --dataset path/or/hub-id --dvae outputs/my-dvae --tokenizer outputs/tok
    accelerate launch examples/train_dalle.py --transformer user/name --dataset path/or/hub-id     # trains on

Codes are read from a folder that encode_codes.py wrote (`--codes`), or made on the fly from the images of `--dataset`.
*Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092), Section 2.2 and Appendix B.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoTokenizer, set_seed

from emoji.scenes import EmojiScenes
from mosaics import DallePipeline, DalleTransformer, DalleTransformerConfig, DiscreteVAE, default_checkpoint
from mosaics.data import CodesDataset, load_eval_data, load_train_data, tokenize
from mosaics.models.codebook_identity import codebook_id
from mosaics.pipelines.reranking import load_clip
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "emoji" / "dalle.yaml"


@strict
@dataclass
class Arguments:
    """The data, the parts trained before, and the network."""

    dataset: str = field(
        default="emoji", metadata={"help": '"emoji", or an image folder, parquet file, webdataset or Hub data set.'}
    )
    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of EmojiScenes or load_captioned_images, as JSON."}
    )
    codes: str | None = field(
        default=None, metadata={"help": "Folder of encode_codes.py; without it images are encoded on the fly."}
    )
    dvae: str | None = field(default=None, metadata={"help": "Trained DiscreteVAE; the embedded one if not given."})
    tokenizer: str | None = field(default=None, metadata={"help": "Trained tokenizer; the embedded one if not given."})
    transformer: str | None = field(
        default=None, metadata={"help": "Trained DalleTransformer to start from; random weights if not given."}
    )
    clip: str | None = field(default=None, metadata={"help": "Trained CLIP that reranks in the saved pipeline."})
    eval_split: str | None = field(
        default=None, metadata={"help": 'Split of --dataset to evaluate on; "test" of a named data set if not given.'}
    )
    num_eval_samples: int = field(default=512, metadata={"help": "Held-out samples to evaluate on, at most."})
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of DalleTransformerConfig: a mapping in a recipe, JSON here."}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": '"sdpa", "eager" or "flex_attention"; eager is the fastest in bf16 on a CPU.'}
    )
    caption_dropout: float = field(
        default=0.1, metadata={"help": "Share of captions left out in training, for classifier-free guidance."}
    )
    bpe_dropout: float = field(default=0.1, metadata={"help": "BPE dropout in training; 0.1 in Appendix B."})


def build_transformer(arguments: Arguments, tokenizer: Any, dvae: DiscreteVAE) -> DalleTransformer:
    """The transformer to train: new, or a trained one that reads the same codes and has the same sizes."""
    trained = arguments.transformer
    saved = {} if trained is None else DalleTransformerConfig.from_pretrained(trained).to_dict()
    settings = {name: value for name, value in saved.items() if not name.startswith("_")}
    config = config_from_settings(
        DalleTransformerConfig,
        settings | (arguments.model or {}),
        text_vocab_size=len(tokenizer),
        max_text_length=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        image_vocab_size=dvae.config.num_embeddings,
        image_grid_size=dvae.config.grid_size,
        codebook_id=codebook_id(dvae),
    )
    if trained is None:
        model = DalleTransformer(config)
    else:
        model = DalleTransformer.from_pretrained(trained, config=config, dtype=torch.float32)
    if arguments.attn_implementation is not None:
        model.set_attn_implementation(arguments.attn_implementation)
    return model


def codes_of(batch: dict, dvae: DiscreteVAE) -> torch.LongTensor:
    """The batch's codes: read from the data, or encoded now."""
    if "indices" in batch:
        return batch["indices"]
    with torch.no_grad():
        return dvae.encode(batch["pixel_values"])


def evaluate(run: TrainingRun, dvae: DiscreteVAE, tokenizer, max_length: int) -> None:
    """Cross-entropy on held-out scenes, in nats per token, and pictures of the first held-out captions."""
    for batch in run.evaluate_batches():
        input_ids = tokenize(tokenizer, batch["caption"], max_length).to(run.device)
        with torch.no_grad():
            output = run.model(input_ids, codes_of(batch, dvae))
        run.log_evaluation({"image_loss": output.image_loss, "text_loss": output.text_loss})
    with run.averaged_weights():
        samples = dvae.decode(run.unwrapped_model.eval().generate(input_ids[:16], seed=run.config.seed))
        run.unwrapped_model.train()
    run.log_images("samples", samples, columns=8)


def save_pipeline(run: TrainingRun, tokenizer, dvae: DiscreteVAE, clip: str | None) -> None:
    """Puts the trained parts together in `output_dir/pipeline`, ready for DallePipeline.from_pretrained."""
    clip_model, clip_processor = (None, None) if clip is None else load_clip(clip)
    transformer = DalleTransformer.from_pretrained(run.output_dir)
    pipeline = DallePipeline(tokenizer, transformer, dvae.cpu(), clip_model, clip_processor)
    pipeline.save_pretrained(run.output_dir / "pipeline")
    print(f'Saved the pipeline: DallePipeline.from_pretrained("{run.output_dir / "pipeline"}")')


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, default_recipe=DEFAULT_RECIPE, description=__doc__)
    set_seed(config.seed)
    dvae = (
        DiscreteVAE.from_pretrained(arguments.dvae or Path(default_checkpoint()) / "dvae").eval().requires_grad_(False)
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer or Path(default_checkpoint()) / "tokenizer")
    max_length = tokenizer.model_max_length
    source = (arguments.dataset, dvae.config.image_size, arguments.dataset_options, {"emoji": EmojiScenes})
    if arguments.codes is not None:
        train_data = CodesDataset(arguments.codes, codebook_id=codebook_id(dvae))
        train_data.captions("to train a DALL-E")  # an error now rather than in the first batch
    else:
        train_data = load_train_data(*source)
    eval_data = load_eval_data(*source, split=arguments.eval_split, num_samples=arguments.num_eval_samples)
    model = build_transformer(arguments, tokenizer, dvae)
    run = TrainingRun(config, model, train_data, eval_data, script_arguments=arguments)
    dvae.to(run.device)
    for batch in run:
        input_ids = tokenize(tokenizer, batch["caption"], max_length, bpe_dropout=arguments.bpe_dropout)
        left_out = torch.rand(len(input_ids), 1) < arguments.caption_dropout
        input_ids = input_ids.masked_fill(left_out, tokenizer.pad_token_id).to(run.device)
        output = run.model(input_ids, codes_of(batch, dvae))
        run.optimize(output.loss, log={"image_loss": output.image_loss, "text_loss": output.text_loss})
        if run.should_evaluate:
            evaluate(run, dvae, tokenizer, max_length)
    if run.is_main_process:
        save_pipeline(run, tokenizer, dvae, arguments.clip)


if __name__ == "__main__":
    main()
