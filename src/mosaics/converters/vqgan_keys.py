"""Tensors of a VQGAN by their names in taming-transformers and in LlamaGen.

                taming-transformers          LlamaGen                     Mosaics, as diffusers
    level       encoder.down.I.block.J       encoder.conv_blocks.I.res.J  encoder.down_blocks.I.resnets.J
                decoder.up.I.block.J         decoder.conv_blocks.K.res.J  decoder.up_blocks.K.resnets.J
    attention   ... .attn.J                  ... .attn.J                  ... .attentions.J
    between     ... .downsample.conv         ... .downsample.conv         ... .downsamplers.0.conv
    middle      mid.block_1, attn_1, block_2 mid.0, 1, 2                  mid_block.resnets.0, attentions.0, resnets.1

I counts resolutions from the highest; of n, K = n - 1 - I counts them in the order in which the decoder runs. The 1x1
convolutions of an attention layer are linear layers in diffusers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mosaics.converters.errors import KeyMismatchError
from mosaics.converters.key_ledger import CONVOLUTION_TO_LINEAR, SAME, KeyLedger
from mosaics.models.vqgan import VQGAN, VQGANConfig

DEFAULT_IMAGE_SIZE = 256
LEVEL_KEY = re.compile(
    r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
MIDDLE_KEY = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
# Names inside of a block or an attention layer, where they differ.
INNER_NAMES = {
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
}
BOTTLENECK_NAMES = {
    "vector": {"bottleneck.quantizer.codebook": "quantize.embedding.weight"},
    "gumbel": {
        "bottleneck.quantizer.codebook": "quantize.embed.weight",
        "bottleneck.to_logits.weight": "quantize.proj.weight",
        "bottleneck.to_logits.bias": "quantize.proj.bias",
    },
    "normalized": {
        "bottleneck.codebook": "quantize.embedding.weight",
        "bottleneck.project_in.weight": "quant_conv.weight",
        "bottleneck.project_in.bias": "quant_conv.bias",
        "bottleneck.project_out.weight": "post_quant_conv.weight",
        "bottleneck.project_out.bias": "post_quant_conv.bias",
    },
}


@dataclass(frozen=True)
class Spelling:
    """How a project names the parts.

    Attributes:
        down: A level of the encoder.
        up: A level of the decoder.
        block: A residual block in a level.
        middle: The three parts of the middle.
        up_in_run_order: Whether the decoder's levels are numbered in the order in which they run.
    """

    down: str
    up: str
    block: str
    middle: tuple[str, str, str]
    up_in_run_order: bool

    def key(self, target: str, num_levels: int) -> str:
        """The name of a tensor of encoder or decoder, given its name in Mosaics."""
        if match := LEVEL_KEY.fullmatch(target):
            side, level, kind, number, rest = match.groups()
            if side == "decoder" and not self.up_in_run_order:
                level = num_levels - 1 - int(level)
            parts = {
                "resnets": f"{self.block}.{number}",
                "attentions": f"attn.{number}",
                "downsamplers": "downsample",
                "upsamplers": "upsample",
            }
            return f"{side}.{self.down if side == 'encoder' else self.up}.{level}.{parts[kind]}.{_inner(rest)}"
        if match := MIDDLE_KEY.fullmatch(target):
            side, kind, number, rest = match.groups()
            part = self.middle[1 if kind == "attentions" else 2 * int(number)]
            return f"{side}.mid.{part}.{_inner(rest)}"
        side, rest = target.split(".", 1)
        return f"{side}.{_inner(rest)}"


TAMING = Spelling("down", "up", "block", ("block_1", "attn_1", "block_2"), up_in_run_order=False)
LLAMAGEN = Spelling("conv_blocks", "conv_blocks", "res", ("0", "1", "2"), up_in_run_order=True)


def is_vqgan(weights: Mapping[str, torch.Tensor], spelling: Spelling) -> bool:
    """Whether the keys are those of a VQGAN of this project."""
    return {f"encoder.{spelling.down}.0.{spelling.block}.0.conv1.weight", "quant_conv.weight"} <= set(weights)


def vqgan_config(ledger: KeyLedger, spelling: Spelling, quantizer: str, image_size: int) -> VQGANConfig:
    """The sizes, read off the tensors."""
    hidden_size, num_channels, _, _ = ledger.shape("encoder.conv_in.weight", dim=4)
    widths, blocks, attention_levels = [], 0, []
    while ledger.keys(level := f"encoder.{spelling.down}.{len(widths)}."):
        if ledger.keys(f"{level}attn.0."):
            attention_levels.append(len(widths))
        if not widths:
            while f"{level}{spelling.block}.{blocks}.conv1.weight" in ledger:
                blocks += 1
        widths.append(ledger.shape(f"{level}{spelling.block}.0.conv1.weight", dim=4)[0])
    if any(width % hidden_size for width in widths):
        raise KeyMismatchError(
            f"{ledger.source}: the widths {widths} of the encoder's levels are not multiples of that of "
            f"encoder.conv_in, {hidden_size}: this is no VQGAN."
        )
    num_embeddings, _ = ledger.shape(_codebook_key(quantizer), dim=2)
    embedding_dim, latent_channels, _, _ = ledger.shape("quant_conv.weight", dim=4)
    return VQGANConfig(
        image_size=image_size,
        num_channels=num_channels,
        num_embeddings=num_embeddings,
        embedding_dim=embedding_dim,
        latent_channels=latent_channels,
        hidden_size=hidden_size,
        channel_multipliers=[width // hidden_size for width in widths],
        num_residual_layers=blocks,
        attention_levels=attention_levels,
        quantizer=quantizer,
    )


def move_vqgan(ledger: KeyLedger, config: VQGANConfig, spelling: Spelling) -> VQGAN:
    """Moves every tensor of a VQGAN, and gives the model on the meta device."""
    with torch.device("meta"):
        model = VQGAN(config)
    names = BOTTLENECK_NAMES[config.quantizer]
    for target, expected in model.state_dict().items():
        if target == "bottleneck.quantizer.bias":
            ledger.fill(target, torch.zeros(expected.shape, dtype=ledger.tensor("quant_conv.bias").dtype))
            continue
        if target.startswith("bottleneck."):
            key = names.get(target, target.removeprefix("bottleneck."))
        else:
            key = spelling.key(target, len(config.widths))
        is_flat = expected.dim() == 2 and ledger.tensor(key).dim() == 4
        ledger.move(key, target, CONVOLUTION_TO_LINEAR if is_flat else SAME)
    return model


def codebook_of(ledger: KeyLedger, config: VQGANConfig) -> torch.Tensor:
    """The source's codebook `(K, D)`."""
    return ledger.tensor(_codebook_key(config.quantizer))


def _codebook_key(quantizer: str) -> str:
    return "quantize.embed.weight" if quantizer == "gumbel" else "quantize.embedding.weight"


def _inner(name: str) -> str:
    name, _, kind = name.rpartition(".")
    return f"{INNER_NAMES.get(name, name)}.{kind}"
