r"""The VQ-VAE-2 of rosinality (https://github.com/rosinality/vq-vae-2-pytorch), `vqvae_*.pt`.

Layers are numbered in `blocks`, ReLUs included; R residual blocks:

    enc_b, enc_t    strided convolutions at 0, 2 and at 0; the 3x3 convolution at 4 and 2; residual blocks after it
    dec, dec_t      the 3x3 convolution at 0; residual blocks at 1 to R; transposed ones at R + 2, R + 4 and at R + 2

Its code of the bottom level reads `[D_up, E]`, ours `[E, D_up]`. Codebooks and their averages are stored transposed.
"""

from collections.abc import Mapping, Sequence

import torch

from mosaics.converters.checkpoints import nested_weights
from mosaics.converters.errors import UnsupportedVariantError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import SAME, TRANSPOSED, KeyLedger, Layout
from mosaics.converters.taming import only_file
from mosaics.models.vqvae2 import VQVAE2, VQVAE2Config

BOTTOM, TOP = "levels.0", "levels.1"
PAST_UPDATES = 10_000  # how many there were is not in the file


class RosinalityVQVAE2Format(ForeignFormat):
    """One state dict, to a [`VQVAE2`]."""

    name = "rosinality-vqvae2"
    description = "A VQ-VAE-2 of vq-vae-2-pytorch, as a VQVAE2."
    sources = ("vqvae_*.pt",)
    project = "https://github.com/rosinality/vq-vae-2-pytorch"
    weights_license = "The project states a license for its code, and none for weights: ask whoever trained them."

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of its VQ-VAE-2 or of its PixelSNAIL."""
        weights = [_weights(file) for file in weight_files(files)]
        return bool(weights) and all("enc_b.blocks.0.weight" in held or _is_pixelsnail(held) for held in weights)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The tensors under our names."""
        for file in weight_files(files):
            if _is_pixelsnail(_weights(file)):
                raise UnsupportedVariantError(
                    f"{file.path} is a PixelSNAIL prior: two-dimensional causal convolutions with weight "
                    "normalisation, ELU and gated residual blocks, and attention over the input beside the features. "
                    "PixelCNN of Mosaics has other layers, and none gives the same numbers. Train a prior on the "
                    "codes of the converted VQ-VAE-2."
                )
        file = only_file(files, self.name)
        ledger = KeyLedger(_weights(file), source=file.name)
        config = _config(ledger)
        _move_encoder(ledger, "enc_b", BOTTOM, strided=(0, 2), config=config)
        _move_encoder(ledger, "enc_t", TOP, strided=(0,), config=config)
        _move_decoder(ledger, "dec_t", TOP, num_upsamples=1, config=config)
        _move_decoder(ledger, "dec", BOTTOM, num_upsamples=2, config=config)
        _move_layer(ledger, "quantize_conv_t", f"{TOP}.to_codes")
        ledger.move("quantize_conv_b.weight", f"{BOTTOM}.to_codes.weight", _channels_swapped(config))
        ledger.move("quantize_conv_b.bias", f"{BOTTOM}.to_codes.bias")
        _move_layer(ledger, "upsample_t", f"{BOTTOM}.upsample")
        for name, level in (("quantize_t", TOP), ("quantize_b", BOTTOM)):
            ledger.move(f"{name}.embed", f"{level}.quantizer.codebook", TRANSPOSED)
            ledger.move(f"{name}.embed_avg", f"{level}.quantizer.sums", TRANSPOSED)
            ledger.move(f"{name}.cluster_size", f"{level}.quantizer.cluster_size")
            # Many, or training would start the codes anew, or at first forget them fast.
            ledger.fill(f"{level}.quantizer.num_updates", torch.tensor(PAST_UPDATES))
        with torch.device("meta"):
            model = VQVAE2(config)
        return Conversion([ConvertedPart(model, ledger)])


def _weights(file: ForeignFile) -> dict[str, torch.Tensor]:
    return nested_weights(file, "model")


def _is_pixelsnail(weights: Mapping[str, torch.Tensor]) -> bool:
    return {"background", "horizontal.conv.conv.weight_v"} <= set(weights)


def _config(ledger: KeyLedger) -> VQVAE2Config:
    """The sizes, read off the tensors."""
    hidden_size, _, _, _ = ledger.shape("enc_b.blocks.4.weight", dim=4)
    embedding_dim, num_embeddings = ledger.shape("quantize_t.embed", dim=2)
    residual_layers = 0
    while f"enc_b.blocks.{5 + residual_layers}.conv.1.weight" in ledger:
        residual_layers += 1
    residual_key = "enc_b.blocks.5.conv.1.weight"
    return VQVAE2Config(
        num_channels=ledger.shape("enc_b.blocks.0.weight", dim=4)[1],
        num_embeddings=num_embeddings,
        embedding_dim=embedding_dim,
        hidden_size=hidden_size,
        upper_downsample_size=ledger.shape("enc_t.blocks.0.weight", dim=4)[0],
        num_residual_layers=residual_layers,
        residual_hidden_size=ledger.shape(residual_key, dim=4)[0] if residual_layers else 1,
    )


def _move_layer(ledger: KeyLedger, source: str, target: str) -> None:
    for kind in ("weight", "bias"):
        ledger.move(f"{source}.{kind}", f"{target}.{kind}", SAME)


def _move_residuals(ledger: KeyLedger, source: str, target: str, first: int, config: VQVAE2Config) -> None:
    for number in range(config.num_residual_layers):
        _move_layer(ledger, f"{source}.blocks.{first + number}.conv.1", f"{target}.blocks.{number}.conv3x3")
        _move_layer(ledger, f"{source}.blocks.{first + number}.conv.3", f"{target}.blocks.{number}.conv1x1")


def _move_encoder(ledger: KeyLedger, source: str, level: str, strided: tuple[int, ...], config: VQVAE2Config) -> None:
    for number, place in enumerate(strided):
        _move_layer(ledger, f"{source}.blocks.{place}", f"{level}.encoder.downsamples.{number}")
    place = strided[-1] + 2
    _move_layer(ledger, f"{source}.blocks.{place}", f"{level}.encoder.input")
    _move_residuals(ledger, source, f"{level}.encoder", place + 1, config)


def _move_decoder(ledger: KeyLedger, source: str, level: str, num_upsamples: int, config: VQVAE2Config) -> None:
    _move_layer(ledger, f"{source}.blocks.0", f"{level}.decoder.input")
    _move_residuals(ledger, source, f"{level}.decoder", 1, config)
    for number in range(num_upsamples):
        place = config.num_residual_layers + 2 + 2 * number
        _move_layer(ledger, f"{source}.blocks.{place}", f"{level}.decoder.upsamples.{number}")


def _channels_swapped(config: VQVAE2Config) -> Layout:
    """Input channels `[D_up, E]` to `[E, D_up]`."""
    above, own = config.embedding_dim, config.hidden_size

    def forward(weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight[:, above:], weight[:, :above]], dim=1)

    def backward(weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight[:, own:], weight[:, :own]], dim=1)

    return Layout(forward, backward)
