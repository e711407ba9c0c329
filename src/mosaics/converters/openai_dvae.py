r"""The discrete VAE that OpenAI published with DALL-E, and its encoder as FLAVA uses it.

`encoder.pkl` and `decoder.pkl` (https://github.com/openai/DALL-E) are whole pickled modules, whose classes become
stubs here. Their parameters are called `w` and `b`:

    blocks.input                                    encoder.input, and decoder.quantizer: a 1x1 convolution over
                                                    one-hot codes is a codebook and a bias
    blocks.group_G.block_B.res_path.conv_N          groups[G-1][B-1].res_path[N-1]
    blocks.group_G.block_B.id_path                  groups[G-1][B-1].id_path
    blocks.output.conv                              output

`facebook/flava-image-codebook` holds the encoder alone, as `weight` and `bias`, with `.group` after a group and
`.path` after a residual path.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from mosaics.converters.errors import KeyMismatchError, MissingSourceError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.inert_pickle import InertObject
from mosaics.converters.key_ledger import CONVOLUTION_TO_CODEBOOK, SAME, KeyLedger
from mosaics.models.dvae import DiscreteVAE, DiscreteVAEConfig, DiscreteVAEImageProcessor

BOTTLENECK_RATIO = 4
FIRST_CONVOLUTION = "blocks.group_1.block_1.res_path.conv_1.w"
LAST_CONVOLUTION = "blocks.group_1.block_1.res_path.conv_4.w"
KEY = re.compile(
    r"(?P<half>encoder|decoder)\.blocks\."
    r"(?:(?P<end>input|output\.conv)|group_(?P<group>\d+)\.block_(?P<block>\d+)\.(?P<path>id_path|res_path\.conv_(?P<number>\d+)))"
    r"\.(?P<kind>[wb])"
)
FLAVA_NAMES = (
    (re.compile(r"(group_\d+)\.group\."), r"\1."),
    (re.compile(r"res_path\.path\."), "res_path."),
    (re.compile(r"\.weight$"), ".w"),
    (re.compile(r"\.bias$"), ".b"),
)


class OpenAIDvaeFormat(ForeignFormat):
    """`encoder.pkl` and `decoder.pkl`, to a [`DiscreteVAE`]."""

    name = "openai-dvae"
    description = "The discrete VAE that OpenAI published with DALL-E, as a DiscreteVAE."
    sources = ("encoder.pkl", "decoder.pkl")
    project = "https://github.com/openai/DALL-E"
    weights_license = "OpenAI published the weights with its repository, under a modified MIT license."
    inert_classes = frozenset(
        {
            "dall_e.encoder.Encoder",
            "dall_e.encoder.EncoderBlock",
            "dall_e.decoder.Decoder",
            "dall_e.decoder.DecoderBlock",
            "dall_e.utils.Conv2d",
            "torch.nn.modules.activation.ReLU",
            "torch.nn.modules.container.Sequential",
            "torch.nn.modules.linear.Identity",
            "torch.nn.modules.pooling.MaxPool2d",
            "torch.nn.modules.upsampling.Upsample",
        }
    )

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether every file with weights is one half of the dVAE."""
        files = weight_files(files)
        return bool(files) and all(openai_half(file.weights) for file in files)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """Both halves to one model."""
        halves: dict[str, ForeignFile] = {}
        for file in weight_files(files):
            half = openai_half(file.weights)
            if half is None:
                raise KeyMismatchError(f"{file.path} is neither the encoder nor the decoder of OpenAI's dVAE.")
            if half in halves:
                raise KeyMismatchError(f"{halves[half].path} and {file.path} are both the {half}: give one of each.")
            halves[half] = file
        for half in ("encoder", "decoder"):
            if half not in halves:
                given = ", ".join(str(file.path) for file in halves.values()) or "no weights"
                raise MissingSourceError(
                    f"the {half} is missing (got {given}): a DiscreteVAE has both. Give encoder.pkl and decoder.pkl."
                )
        return dvae_conversion(halves["encoder"], halves["encoder"].weights, halves["decoder"])


class FlavaCodebookFormat(ForeignFormat):
    """FLAVA's image codebook and OpenAI's decoder, to a [`DiscreteVAE`]."""

    name = "flava-image-codebook"
    description = "FLAVA's image codebook, which is the encoder of OpenAI's dVAE, with its decoder, as a DiscreteVAE."
    sources = (
        "model.safetensors or pytorch_model.bin of facebook/flava-image-codebook",
        "decoder.pkl of OpenAI's dVAE",
    )
    project = "https://huggingface.co/facebook/flava-image-codebook"
    weights_license = "The weights are OpenAI's, published under a modified MIT license."
    inert_classes = OpenAIDvaeFormat.inert_classes

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether one file is FLAVA's codebook, and the others are halves of OpenAI's dVAE."""
        files = weight_files(files)
        flava = [is_flava(file.weights) for file in files]
        return any(flava) and all(known or openai_half(file.weights) for known, file in zip(flava, files, strict=True))

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The encoder of one, the decoder of the other."""
        codebooks = [file for file in weight_files(files) if is_flava(file.weights)]
        decoders = [file for file in weight_files(files) if openai_half(file.weights) == "decoder"]
        if not codebooks or not decoders:
            missing = "FLAVA's image codebook" if not codebooks else "the decoder, decoder.pkl of OpenAI's dVAE,"
            given = ", ".join(str(file.path) for file in weight_files(files)) or "no weights"
            raise MissingSourceError(
                f"{missing} is missing (got {given}). FLAVA has the encoder alone; a DiscreteVAE has both."
            )
        if len(codebooks) + len(decoders) != len(weight_files(files)) or len(codebooks) > 1 or len(decoders) > 1:
            names = ", ".join(file.name for file in weight_files(files))
            raise KeyMismatchError(f"one codebook and one decoder are needed, got {names}.")
        return dvae_conversion(codebooks[0], openai_names(codebooks[0].weights), decoders[0])


def openai_half(weights: Mapping[str, torch.Tensor]) -> str | None:
    """`"encoder"` or `"decoder"`: the kernels of a block are 3, 3, 3, 1 in one and 1, 3, 3, 3 in the other."""
    if not {FIRST_CONVOLUTION, LAST_CONVOLUTION, "blocks.input.w", "blocks.output.conv.w"} <= set(weights):
        return None
    kernels = weights[FIRST_CONVOLUTION].shape[-1], weights[LAST_CONVOLUTION].shape[-1]
    return {(3, 1): "encoder", (1, 3): "decoder"}.get(kernels)


def is_flava(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether the keys are those of FLAVA's image codebook."""
    return "blocks.group_1.group.block_1.res_path.path.conv_1.weight" in weights


def openai_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """FLAVA's tensors under OpenAI's names."""
    renamed = {}
    for key, tensor in weights.items():
        for pattern, replacement in FLAVA_NAMES:
            key = pattern.sub(replacement, key)
        renamed[key] = tensor
    return renamed


def dvae_conversion(
    encoder_file: ForeignFile, encoder_weights: Mapping[str, torch.Tensor], decoder_file: ForeignFile
) -> Conversion:
    """A [`DiscreteVAE`] of an encoder under OpenAI's names and of OpenAI's decoder."""
    weights = {f"encoder.{key}": tensor for key, tensor in encoder_weights.items()}
    weights |= {f"decoder.{key}": tensor for key, tensor in decoder_file.weights.items()}
    part = openai_dvae_part(weights, f"{encoder_file.name} and {decoder_file.name}")
    for file in (encoder_file, decoder_file):
        _check_gain(file, part.model.config)
    return Conversion([part], write_others=_write_image_processor(part.model.config.image_size))


def openai_dvae_part(weights: Mapping[str, torch.Tensor], source: str, subfolder: str = "") -> ConvertedPart:
    """A [`DiscreteVAE`] and where its weights come from.

    Args:
        weights: OpenAI's tensors, behind `encoder.` and `decoder.`.
        source: Name of the file or files.
        subfolder: Where it is written.
    """
    ledger = KeyLedger(weights, source)
    config = dvae_config(ledger)
    for key in ledger.keys():
        match = KEY.fullmatch(key)
        if match is None:
            continue  # a leftover, which the ledger reports
        codebook = match["half"] == "decoder" and match["end"] == "input" and match["kind"] == "w"
        ledger.move(key, _target(match), CONVOLUTION_TO_CODEBOOK if codebook else SAME)
    with torch.device("meta"):
        model = DiscreteVAE(config)
    return ConvertedPart(model, ledger, subfolder)


def dvae_config(ledger: KeyLedger) -> DiscreteVAEConfig:
    """The sizes, read off the tensors."""
    num_embeddings, _, _, _ = ledger.shape("encoder.blocks.output.conv.w", dim=4)
    hidden_size, num_channels, stem_kernel_size, _ = ledger.shape("encoder.blocks.input.w", dim=4)
    codebook_dim, decoder_embeddings, _, _ = ledger.shape("decoder.blocks.input.w", dim=4)
    if num_embeddings != decoder_embeddings:
        raise KeyMismatchError(
            f"{ledger.source} do not belong together: the encoder has {num_embeddings} codes, the decoder "
            f"{decoder_embeddings}."
        )
    matches = [match for match in map(KEY.fullmatch, ledger.keys("encoder.")) if match and match["group"]]
    return DiscreteVAEConfig(
        num_channels=num_channels,
        num_embeddings=num_embeddings,
        codebook_dim=codebook_dim,
        hidden_size=hidden_size,
        num_groups=max(int(match["group"]) for match in matches),
        blocks_per_group=max(int(match["block"]) for match in matches),
        bottleneck_ratio=BOTTLENECK_RATIO,
        stem_kernel_size=stem_kernel_size,
    )


def _target(match: re.Match) -> str:
    half, end, kind = match["half"], match["end"], {"w": "weight", "b": "bias"}[match["kind"]]
    if end == "input" and half == "decoder":
        return f"decoder.quantizer.{'codebook' if kind == 'weight' else 'bias'}"
    if end is not None:
        return f"{half}.{end.removesuffix('.conv')}.{kind}"
    path = "id_path" if match["path"] == "id_path" else f"res_path.{int(match['number']) - 1}"
    return f"{half}.groups.{int(match['group']) - 1}.{int(match['block']) - 1}.{path}.{kind}"


def _check_gain(file: ForeignFile, config: PreTrainedConfig) -> None:
    """The factor of the residual paths is an attribute of the pickled blocks, not a tensor."""
    for module in _modules(file.content):
        gain = vars(module).get("post_gain", config.post_gain)
        if not isinstance(gain, float) or abs(gain - config.post_gain) > 1e-12:
            raise KeyMismatchError(
                f"{file.path} has blocks with post_gain={gain!r}; {config.num_groups} groups of "
                f"{config.blocks_per_group} blocks should have {config.post_gain!r}."
            )


def _modules(content: Any) -> list[InertObject]:
    found, waiting = [], [content]
    while waiting:
        module = waiting.pop()
        if isinstance(module, InertObject):
            found.append(module)
            children = vars(module).get("_modules")
            waiting.extend(children.values() if isinstance(children, dict) else ())
    return found


def _write_image_processor(image_size: int):
    def write(folder: Path) -> None:
        size = {"height": image_size, "width": image_size}
        DiscreteVAEImageProcessor(size={"shortest_edge": image_size}, crop_size=size).save_pretrained(folder)

    return write
