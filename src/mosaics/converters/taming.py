"""Checkpoints of taming-transformers' VQGAN, and of those who took its code: minDALL-E, ruDALL-E, LlamaGen."""

from collections.abc import Sequence
from typing import Any

import torch

from mosaics.converters.checkpoints import entry, nested_weights, read_yaml_files
from mosaics.converters.errors import ConversionError, KeyMismatchError, UnsupportedVariantError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import KeyLedger
from mosaics.converters.vqgan_keys import (
    DEFAULT_IMAGE_SIZE,
    LLAMAGEN,
    TAMING,
    is_vqgan,
    move_vqgan,
    vqgan_config,
)

TRAINING_ONLY = "belongs to the losses of training"


class TamingVQGANFormat(ForeignFormat):
    """One Lightning checkpoint, `last.ckpt`, to a [`VQGAN`]; nearest codes or Gumbel."""

    name = "taming-vqgan"
    description = "A VQGAN of taming-transformers, with nearest or Gumbel codes, as a VQGAN."
    sources = ("the checkpoint (.ckpt)", "its model.yaml, for the size of the pictures, else 256")
    project = "https://github.com/CompVis/taming-transformers"
    license = "mit"
    weights_license = "The project and the weights it links to are under the MIT license; those of others may not be."
    inert_classes = frozenset({"pytorch_lightning.*", "omegaconf.*"})

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of a VQGAN, alone or inside of a transformer's checkpoint."""
        weights = [taming_weights(file) for file in weight_files(files)]
        return bool(weights) and all(is_vqgan(held, TAMING) or _is_net2net(held) for held in weights)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The tensors under diffusers' names."""
        file = only_file(files, self.name)
        weights = taming_weights(file)
        if _is_net2net(weights):
            raise UnsupportedVariantError(
                f"{file.path} is a transformer over the codes of a VQGAN, given classes, pictures or nothing: no "
                "transformer of Mosaics is like it. Give the checkpoint of its first stage, the VQGAN, alone."
            )
        ledger, model = taming_vqgan(file, weights, configured_image_size(files))
        return Conversion([ConvertedPart(model, ledger)])


class LlamaGenVQFormat(ForeignFormat):
    """The image tokenizer of LlamaGen, `vq_ds16_*.pt` or `vq_ds8_*.pt`, to a [`VQGAN`] with normalised codes."""

    name = "llamagen-vq"
    description = "The image tokenizer of LlamaGen, as a VQGAN with normalised codes."
    sources = ("the checkpoint (.pt)",)
    project = "https://github.com/FoundationVision/LlamaGen"
    license = "mit"
    weights_license = "The project and its weights are under the MIT license."

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of this tokenizer."""
        weights = [nested_weights(file, "ema", "model") for file in weight_files(files)]
        return bool(weights) and all(is_vqgan(held, LLAMAGEN) for held in weights)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The tensors under diffusers' names; averaged weights if there are any, as its own program takes them."""
        file = only_file(files, self.name)
        ledger = KeyLedger(nested_weights(file, "ema", "model"), source=file.name)
        if "quantize.codebook_used" in ledger:
            ledger.drop("quantize.codebook_used", "statistics of training")
        config = vqgan_config(ledger, LLAMAGEN, "normalized", DEFAULT_IMAGE_SIZE)
        return Conversion([ConvertedPart(move_vqgan(ledger, config, LLAMAGEN), ledger)])


def taming_weights(file: ForeignFile) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint; of ruDALL-E's decoder over wavelets without the `model.` before their names."""
    weights = nested_weights(file, "state_dict")
    if "model.quant_conv.weight" not in weights:
        return weights
    return {key.removeprefix("model."): tensor for key, tensor in weights.items()}


def configured_image_size(files: Sequence[ForeignFile]) -> Any:
    """The size of pictures that a model.yaml among the files gives, whatever it is; 256 without one."""
    image_size = entry(read_yaml_files(files), "model", "params", "ddconfig", "resolution")
    return DEFAULT_IMAGE_SIZE if image_size is None else image_size


def taming_vqgan(file: ForeignFile, weights: dict[str, torch.Tensor], image_size: int):
    """The ledger of a VQGAN under taming's names, every tensor moved, and the model on the meta device.

    Raises:
        ConversionError: It is a variant that has no counterpart, or no size of pictures.
    """
    ledger = KeyLedger(weights, source=file.name)
    if "quantize.used" in ledger:
        raise UnsupportedVariantError(
            f"{file.path} maps its codes to those in use (tensor 'quantize.used'), which a VQGAN of Mosaics does not."
        )
    if ledger.keys("decoder.post_quant_conv."):
        raise UnsupportedVariantError(
            f"{file.path} has ruDALL-E's decoder over wavelets (tensors 'decoder.post_quant_conv.*'), which draws "
            "pictures of twice the size that its encoder reads; no image tokenizer of Mosaics does. Give "
            "vqgan.gumbelf8-sber.model.ckpt, with the same codes."
        )
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise ConversionError(
            f"the configuration beside {file.path} has resolution={image_size!r}: no size of pictures."
        )
    ledger.drop(ledger.keys("loss."), TRAINING_ONLY)
    quantizer = "gumbel" if "quantize.embed.weight" in ledger else "vector"
    config = vqgan_config(ledger, TAMING, quantizer, image_size)
    return ledger, move_vqgan(ledger, config, TAMING)


def only_file(files: Sequence[ForeignFile], format_name: str) -> ForeignFile:
    """The one file with weights.

    Raises:
        KeyMismatchError: There are several, or none.
    """
    found = weight_files(files)
    if len(found) != 1:
        names = ", ".join(str(file.path) for file in found) or "none"
        raise KeyMismatchError(f"{format_name} is one file of weights, got {names}.")
    return found[0]


def _is_net2net(weights: dict[str, torch.Tensor]) -> bool:
    return "transformer.tok_emb.weight" in weights and any(key.startswith("first_stage_model.") for key in weights)
