#!/usr/bin/env python
"""Trains a gated PixelCNN on image codes: the prior of a VQ-VAE or discrete VAE (stage 2).

    accelerate launch examples/encode_codes.py --output_dir outputs/codes       # first: the pictures as codes
    accelerate launch examples/train_pixelcnn.py --codes outputs/codes
    accelerate launch examples/train_pixelcnn.py --codes outputs/codes --classes_from_captions true --dvae outputs/dvae

With `--dvae` the samples of every evaluation are decoded and saved as pictures.
*Conditional Image Generation with PixelCNN Decoders* (https://arxiv.org/abs/1606.05328).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch.utils.data import Dataset
from transformers import AutoModel, PreTrainedModel, set_seed

from mosaics import PixelCNN, PixelCNNConfig
from mosaics.data import CodesDataset
from mosaics.models.codebook_identity import codebook_id
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments


@strict
@dataclass
class Arguments:
    """The codes, the tokenizer that made them, and the network."""

    codes: str = field(default="outputs/codes", metadata={"help": "Folder that encode_codes.py wrote."})
    eval_codes: str | None = field(
        default=None, metadata={"help": "Folder of other codes to evaluate on; the last of --codes if not given."}
    )
    num_eval_samples: int = field(default=512, metadata={"help": "Held-out samples to evaluate on, at most."})
    classes_from_captions: bool = field(
        default=False, metadata={"help": "Condition on the caption as a class: for captions that are a few names."}
    )
    dvae: str | None = field(
        default=None, metadata={"help": "The image tokenizer that made the codes; draws pictures at every evaluation."}
    )
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of PixelCNNConfig: a mapping in a recipe, JSON here."}
    )


class ClassCodes(Dataset):
    """Some samples of a folder of codes: the codes, and the number of the caption if captions are classes."""

    def __init__(self, codes: CodesDataset, samples: range, class_names: list[str] | None):
        self.codes, self.samples, self.class_names = codes, samples, class_names
        self.numbers = {name: number for number, name in enumerate(class_names or ())}
        self.fingerprint = f"{codes.fingerprint} {samples} {class_names}"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.codes[self.samples[index]]
        if self.class_names is None:
            return {"indices": sample["indices"]}
        if sample["caption"] not in self.numbers:
            raise ValueError(f"{sample['caption']!r} is a caption, and so a class, that the training codes lack.")
        return {"indices": sample["indices"], "class_labels": self.numbers[sample["caption"]]}


def load_data(arguments: Arguments, dvae: PreTrainedModel | None) -> tuple[ClassCodes, ClassCodes]:
    identity = None if dvae is None else codebook_id(dvae)
    train = CodesDataset(arguments.codes, codebook_id=identity)
    names = sorted(set(train.codes.captions.to_pylist())) if arguments.classes_from_captions else None
    if arguments.eval_codes is not None:
        held_out = CodesDataset(arguments.eval_codes, codebook_id=train.description.codebook_id)
        samples = range(min(arguments.num_eval_samples, len(held_out)))
        return ClassCodes(train, range(len(train)), names), ClassCodes(held_out, samples, names)
    split = max(len(train) - arguments.num_eval_samples, (len(train) + 1) // 2)
    return ClassCodes(train, range(split), names), ClassCodes(train, range(split, len(train)), names)


def evaluate(run: TrainingRun, dvae: PreTrainedModel | None) -> None:
    """Bits per code of held-out samples, and pictures of the first classes."""
    for batch in run.evaluate_batches():
        with torch.no_grad():
            output = run.model(batch["indices"], batch.get("class_labels"))
        run.log_evaluation({"loss": output.loss, "bits_per_code": output.loss / math.log(2)})
    if dvae is None:
        return
    model, num_classes = run.unwrapped_model, run.unwrapped_model.config.num_classes
    labels = None if num_classes is None else torch.arange(16, device=run.device) % num_classes
    with run.averaged_weights(), torch.no_grad():
        samples = dvae.decode(model.eval().generate(16, class_labels=labels, seed=run.config.seed))
        model.train()
    run.log_images("samples", samples, columns=8)


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    dvae = None
    if arguments.dvae is not None:
        dvae = AutoModel.from_pretrained(arguments.dvae).eval().requires_grad_(False)
    train_data, eval_data = load_data(arguments, dvae)
    description, names = train_data.codes.description, train_data.class_names
    model_config = config_from_settings(
        PixelCNNConfig,
        arguments.model,
        num_embeddings=description.num_embeddings,
        grid_height=description.grid_size[0],
        grid_width=description.grid_size[1],
        num_classes=None if names is None else len(names),
        codebook_id=description.codebook_id,
    )
    if names is not None:
        model_config.id2label = dict(enumerate(names))  # saved with the model
    run = TrainingRun(config, PixelCNN(model_config), train_data, eval_data, script_arguments=arguments)
    if dvae is not None:
        dvae.to(run.device)
    for batch in run:
        output = run.model(batch["indices"], batch.get("class_labels"))
        run.optimize(output.loss, log={"bits_per_code": output.loss.detach() / math.log(2)})
        if run.should_evaluate:
            evaluate(run, dvae)


if __name__ == "__main__":
    main()
