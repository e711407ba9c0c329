#!/usr/bin/env python
"""Trains a WaveNet on sequences of codes: the prior of an audio VQ-VAE (stage 2).

    accelerate launch examples/train_wavenet.py --codes outputs/codes
    accelerate launch examples/train_wavenet.py --codes outputs/codes --crop_length 2048 --classes_from_captions true

A grid of codes (h, w) is read as a sequence of h * w codes in raster order; those of audio have one row. With
`--classes_from_captions` a caption is a class, such as the name of the speaker.
*WaveNet: A Generative Model for Raw Audio* (https://arxiv.org/abs/1609.03499).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch.utils.data import Dataset
from transformers import set_seed

from mosaics import WaveNet, WaveNetConfig
from mosaics.data import CodesDataset
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments


@strict
@dataclass
class Arguments:
    """The codes and the network."""

    codes: str = field(default="outputs/codes", metadata={"help": "Folder of codes, as encode_codes.py writes them."})
    eval_codes: str | None = field(
        default=None, metadata={"help": "Folder of other codes to evaluate on; the last of --codes if not given."}
    )
    num_eval_samples: int = field(default=512, metadata={"help": "Held-out samples to evaluate on, at most."})
    crop_length: int | None = field(
        default=None,
        metadata={"help": "Train on random stretches of this many codes; on whole sequences if not given."},
    )
    classes_from_captions: bool = field(
        default=False, metadata={"help": "Condition on the caption as a class: for captions that are a few names."}
    )
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of WaveNetConfig: a mapping in a recipe, JSON here."}
    )

    def __post_init__(self) -> None:
        if self.crop_length is not None and self.crop_length < 1:
            raise ValueError(f"crop_length must be at least 1, got {self.crop_length}.")


class ClassSequences(Dataset):
    """Some samples of a folder of codes as sequences, and the number of the caption if captions are classes."""

    def __init__(self, codes: CodesDataset, samples: range, class_names: list[str] | None):
        self.codes, self.samples, self.class_names = codes, samples, class_names
        self.numbers = {name: number for number, name in enumerate(class_names or ())}
        self.fingerprint = f"{codes.fingerprint} {samples} {class_names}"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.codes[self.samples[index]]
        if self.class_names is None:
            return {"indices": sample["indices"].flatten()}
        if sample["caption"] not in self.numbers:
            raise ValueError(f"{sample['caption']!r} is a caption, and so a class, that the training codes lack.")
        return {"indices": sample["indices"].flatten(), "class_labels": self.numbers[sample["caption"]]}


def load_data(arguments: Arguments) -> tuple[ClassSequences, ClassSequences]:
    train = CodesDataset(arguments.codes)
    names = sorted(set(train.codes.captions.to_pylist())) if arguments.classes_from_captions else None
    if arguments.eval_codes is not None:
        held_out = CodesDataset(arguments.eval_codes, codebook_id=train.description.codebook_id)
        samples = range(min(arguments.num_eval_samples, len(held_out)))
        return ClassSequences(train, range(len(train)), names), ClassSequences(held_out, samples, names)
    split = max(len(train) - arguments.num_eval_samples, (len(train) + 1) // 2)
    return ClassSequences(train, range(split), names), ClassSequences(train, range(split, len(train)), names)


def crop(indices: torch.LongTensor, length: int | None) -> torch.LongTensor:
    """A random stretch of `length` codes, the same one for the whole batch."""
    if length is None or length >= indices.shape[1]:
        return indices
    start = int(torch.randint(indices.shape[1] - length + 1, ()))
    return indices[:, start : start + length]


def evaluate(run: TrainingRun) -> None:
    """Bits per code of whole held-out sequences."""
    for batch in run.evaluate_batches():
        with torch.no_grad():
            output = run.model(batch["indices"], batch.get("class_labels"))
        run.log_evaluation({"loss": output.loss, "bits_per_code": output.loss / math.log(2)})


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    train_data, eval_data = load_data(arguments)
    description, names = train_data.codes.description, train_data.class_names
    model_config = config_from_settings(
        WaveNetConfig,
        arguments.model,
        num_embeddings=description.num_embeddings,
        num_classes=None if names is None else len(names),
        codebook_id=description.codebook_id,
    )
    if names is not None:
        model_config.id2label = dict(enumerate(names))  # saved with the model
    run = TrainingRun(config, WaveNet(model_config), train_data, eval_data, script_arguments=arguments)
    for batch in run:
        output = run.model(crop(batch["indices"], arguments.crop_length), batch.get("class_labels"))
        run.optimize(output.loss, log={"bits_per_code": output.loss.detach() / math.log(2)})
        if run.should_evaluate:
            evaluate(run)


if __name__ == "__main__":
    main()
