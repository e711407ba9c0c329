#!/usr/bin/env python
"""Trains a gated PixelCNN on image codes: the prior of a VQ-VAE, of a level of a VQ-VAE-2, or of a discrete VAE.

    accelerate launch examples/encode_codes.py --output_dir outputs/codes       # first: the pictures as codes
    accelerate launch examples/train_pixelcnn.py --codes outputs/codes
    accelerate launch examples/train_pixelcnn.py --codes outputs/codes --level 2 --vqvae outputs/vqvae2

Level 1 is the top; the prior of a lower level is conditioned on the codes of all levels above it. If the codes have
class labels, it is conditioned on them too. With `--vqvae` samples of every evaluation are saved as pictures.
*Conditional Image Generation with PixelCNN Decoders* (https://arxiv.org/abs/1606.05328).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoModel, PreTrainedModel, set_seed

from mosaics import PixelCNN, PixelCNNConfig, VQVAEPipeline
from mosaics.data import PriorCodes, PriorCodesArguments
from mosaics.models.codebook_identity import level_codebook_ids
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments

NUM_PICTURES = 16


@strict
@dataclass
class Arguments(PriorCodesArguments):
    """The codes, the tokenizer that made them, and the network."""

    vqvae: str | None = field(
        default=None,
        metadata={
            "help": "The tokenizer that made the codes; draws pictures at every evaluation of the lowest level.",
            "aliases": ["--dvae"],
        },
    )
    upper_priors: list[str] | None = field(
        default=None,
        metadata={"help": "Trained priors of the levels above, top first; with --vqvae the pipeline is saved too."},
    )
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of PixelCNNConfig: a mapping in a recipe, JSON here."}
    )


def config_for(arguments: Arguments, data: PriorCodes) -> PixelCNNConfig:
    """The configuration whose sizes are those of the codes."""
    grid, upper = data.grid, data.upper_grids
    if len(grid.size) < 2:
        raise SystemExit(f"train_pixelcnn.py: error: {arguments.codes} holds sequences: use train_wavenet.py.")
    config = config_from_settings(
        PixelCNNConfig,
        arguments.model,
        num_embeddings=grid.num_embeddings,
        grid_height=grid.size[0],
        grid_width=grid.size[1],
        latents_per_position=grid.size[2] if len(grid.size) > 2 else 1,
        num_classes=data.num_classes,
        condition_num_embeddings=[above.num_embeddings for above in upper] or None,
        condition_factors=[grid.size[0] // above.size[0] for above in upper] or None,
        codebook_id=grid.codebook_id,
    )
    if data.class_names is not None:
        config.id2label = dict(enumerate(data.class_names))  # saved with the model
    return config


def evaluate(run: TrainingRun, vqvae: PreTrainedModel | None) -> None:
    """Bits per code of held-out samples, and pictures."""
    for batch in run.evaluate_batches():
        with torch.no_grad():
            output = run.model(batch["indices"], batch.get("class_labels"), batch.get("conditions"))
        run.log_evaluation({"loss": output.loss, "bits_per_code": output.loss / math.log(2)})
    if vqvae is not None and run.train_dataset.level == len(run.train_dataset.codes.description.grids):
        run.log_images("samples", draw_pictures(run, vqvae, batch), columns=8)


@torch.no_grad()
def draw_pictures(run: TrainingRun, vqvae: PreTrainedModel, batch: dict) -> torch.Tensor:
    """Pictures of the first classes, or, of a lower level, with the upper codes and classes of held-out samples."""
    model, num_classes = run.unwrapped_model, run.unwrapped_model.config.num_classes
    conditions = tuple(grid[:NUM_PICTURES] for grid in batch.get("conditions", ()))
    count, labels = NUM_PICTURES, None
    if conditions:
        count = len(conditions[0])
    if num_classes is not None:
        first_classes = torch.arange(count, device=run.device) % num_classes
        labels = batch["class_labels"][:count] if conditions else first_classes
    with run.averaged_weights():
        codes = model.eval().generate(count, class_labels=labels, conditions=conditions or None, seed=run.config.seed)
        model.train()
    return vqvae.decode((*conditions, codes) if conditions else codes)


def save_pipeline(run: TrainingRun, arguments: Arguments) -> None:
    """Puts tokenizer and priors together in `output_dir/pipeline`, if this is the prior of the lowest level."""
    upper = arguments.upper_priors or []
    if arguments.vqvae is None or len(upper) + 1 < len(run.train_dataset.codes.description.grids):
        return
    priors = [PixelCNN.from_pretrained(folder) for folder in [*upper, run.output_dir]]
    pipeline = VQVAEPipeline(AutoModel.from_pretrained(arguments.vqvae), *priors)
    pipeline.save_pretrained(run.output_dir / "pipeline")
    print(f'Saved the pipeline: VQVAEPipeline.from_pretrained("{run.output_dir / "pipeline"}")')


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    vqvae = None
    if arguments.vqvae is not None:
        vqvae = AutoModel.from_pretrained(arguments.vqvae).eval().requires_grad_(False)
    train_data, eval_data = arguments.load(None if vqvae is None else level_codebook_ids(vqvae))
    model = PixelCNN(config_for(arguments, train_data))
    run = TrainingRun(config, model, train_data, eval_data, script_arguments=arguments)
    if vqvae is not None:
        vqvae.to(run.device)
    for batch in run:
        output = run.model(batch["indices"], batch.get("class_labels"), batch.get("conditions"))
        run.optimize(output.loss, log={"bits_per_code": output.loss.detach() / math.log(2)})
        if run.should_evaluate:
            evaluate(run, vqvae)
    if run.is_main_process:
        save_pipeline(run, arguments)


if __name__ == "__main__":
    main()
