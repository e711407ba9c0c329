r"""The discrete VAE of DALLE-pytorch (https://github.com/lucidrains/DALLE-pytorch): `vae.pt`.

A dictionary of `hparams` and `weights`. With L layers and R residual blocks, numbered in the order in which they run:

    encoder.0 ... L-1 (.0)             encoder.downsamples
    encoder.L ... L+R-1 (.net)         encoder.residual_blocks
    encoder.L+R                        encoder.output
    codebook                           quantizer.codebook
    decoder.0, if R > 0                decoder.input
    decoder, the next R (.net)         decoder.residual_blocks
    decoder, the next L (.0)           decoder.upsamples
    decoder, the last                  decoder.output
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mosaics.converters.errors import ForeignFileError, KeyMismatchError, UnsupportedVariantError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import KeyLedger
from mosaics.converters.taming import only_file
from mosaics.models.dalle_pytorch_vae import DallePytorchVAE, DallePytorchVAEConfig

STRIDED = re.compile(r"(encoder|decoder)\.(\d+)\.0\.weight")
BLOCK = re.compile(r"(encoder|decoder)\.(\d+)\.net\.0\.weight")
SETTINGS = {
    "image_size": "image_size",
    "num_tokens": "num_embeddings",
    "codebook_dim": "codebook_dim",
    "num_layers": "num_layers",
    "num_resnet_blocks": "num_residual_blocks",
    "hidden_dim": "hidden_size",
    "channels": "num_channels",
}
NOT_SAVED = "not in the file: temperature, straight-through, loss and normalisation are the project's defaults"


class DallePytorchVAEFormat(ForeignFormat):
    """`vae.pt`, to a [`DallePytorchVAE`]."""

    name = "dalle-pytorch-vae"
    description = "A discrete VAE trained with DALLE-pytorch, as a DallePytorchVAE."
    sources = ("vae.pt",)
    project = "https://github.com/lucidrains/DALLE-pytorch"
    license = "unknown"
    weights_license = (
        "The project is under the MIT license; the license of the weights is whoever trained them to say."
    )

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of such a VAE."""
        files = weight_files(files)
        return bool(files) and all(is_dalle_pytorch_vae(saved_weights(file)) for file in files)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The tensors under our names."""
        file = only_file(files, self.name)
        part = vae_part(saved_weights(file), file.content.get("hparams"), file.name)
        return Conversion([part], left_out={"training settings": NOT_SAVED})


def saved_weights(file: ForeignFile) -> dict[str, torch.Tensor]:
    """The entry `weights` of a checkpoint of DALLE-pytorch; empty if there is none.

    Raises:
        ForeignFileError: It is the auxiliary file of a DeepSpeed checkpoint, whose weights are elsewhere.
    """
    content = file.content if file.kind == "torch" else None
    if not isinstance(content, dict) or "hparams" not in content:
        return {}
    weights = content.get("weights")
    if isinstance(weights, str):
        raise ForeignFileError(
            f"{file.path} goes with a DeepSpeed checkpoint and holds no weights. Put the weights together first, with "
            "the script zero_to_fp32.py that DeepSpeed wrote beside them, and save them as the entry 'weights'."
        )
    return {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)} if weights else {}


def is_dalle_pytorch_vae(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether the keys are those of DALLE-pytorch's own VAE."""
    return {"codebook.weight", "encoder.0.0.weight"} <= set(weights)


def vae_part(weights: Mapping[str, torch.Tensor], settings: Any, source: str, subfolder: str = "") -> ConvertedPart:
    """A [`DallePytorchVAE`] and where its weights come from.

    Args:
        weights: The tensors, without a prefix.
        settings: The arguments it was made with, as saved.
        source: Name of the file.
        subfolder: Where it is written.

    Raises:
        ConversionError: Keys are missing or left over, or settings and tensors disagree.
    """
    ledger = KeyLedger(weights, source)
    config = _config(ledger, settings)
    for side in ("encoder", "decoder"):
        for key in ledger.keys(f"{side}."):
            target = _target(side, *key.split(".")[1:], config=config)
            if target is not None:  # else a leftover, which the ledger reports
                ledger.move(key, target)
    ledger.move("codebook.weight", "quantizer.codebook")
    with torch.device("meta"):
        model = DallePytorchVAE(config)
    return ConvertedPart(model, ledger, subfolder)


def _target(side: str, number: str, *rest: str, config: DallePytorchVAEConfig) -> str | None:
    """The name of a tensor of encoder or decoder, by the number of its layer."""
    layers, blocks, index = config.num_layers, config.num_residual_blocks, int(number)
    if side == "decoder":
        if blocks and index == 0:
            return f"decoder.input.{rest[0]}" if len(rest) == 1 else None
        index -= 1 if blocks else 0
        strided, first_block, last = range(blocks, blocks + layers), 0, blocks + layers
    else:
        strided, first_block, last = range(layers), layers, layers + blocks
    if index == last and len(rest) == 1:
        return f"{side}.output.{rest[0]}"
    if index in strided and len(rest) == 2 and rest[0] == "0":
        name = "downsamples" if side == "encoder" else "upsamples"
        return f"{side}.{name}.{index - strided.start}.{rest[1]}"
    if len(rest) == 3 and rest[0] == "net" and rest[1] in ("0", "2", "4") and 0 <= index - first_block < blocks:
        return f"{side}.residual_blocks.{index - first_block}.convolutions.{int(rest[1]) // 2}.{rest[2]}"
    return None


def _config(ledger: KeyLedger, settings: Any) -> DallePytorchVAEConfig:
    """The sizes, read off the tensors; the file's settings must agree, and give the size of the pictures."""
    if not isinstance(settings, dict) or type(settings.get("image_size")) is not int:
        raise KeyMismatchError(f"{ledger.source} does not say the size of its pictures (hparams, image_size).")
    hidden_size, num_channels, _, _ = ledger.shape("encoder.0.0.weight", dim=4)
    num_embeddings, codebook_dim = ledger.shape("codebook.weight", dim=2)
    found = {
        "num_embeddings": num_embeddings,
        "codebook_dim": codebook_dim,
        "num_layers": sum(bool(STRIDED.fullmatch(key)) for key in ledger.keys("encoder.")),
        "num_residual_blocks": sum(bool(BLOCK.fullmatch(key)) for key in ledger.keys("encoder.")),
        "hidden_size": hidden_size,
        "num_channels": num_channels,
    }
    for name, value in settings.items():
        if name not in SETTINGS:
            raise UnsupportedVariantError(f"{ledger.source} was made with {name}={value!r:.80}, which is not known.")
        if found.get(SETTINGS[name], value) != value:
            raise KeyMismatchError(
                f"{ledger.source}: hparams say {name}={value!r}, the tensors {found[SETTINGS[name]]}."
            )
    return DallePytorchVAEConfig(image_size=settings["image_size"], **found)
