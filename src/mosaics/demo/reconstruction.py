"""A picture through the image tokenizer and back."""

import math
from dataclasses import dataclass

import torch
from PIL import Image

from mosaics.demo.pictures import decode, encode, enlarge, to_pictures
from mosaics.pipelines import DallePipeline

SHOWN_SIDE = 512


@dataclass(frozen=True)
class Reconstruction:
    """A picture, what is left of it after its codes, and numbers about both.

    Args:
        original: The picture that was encoded, enlarged.
        decoded: What its codes paint, enlarged alike.
        psnr: 10 log10(1 / mean squared error) of pixels in [0, 1], in dB; infinite if they are equal.
        num_codes: Different codes in its grid.
        num_positions: Positions of the grid.
        num_bytes: Bytes that the codes take, packed.
        raw_bytes: Bytes that 8-bit pixels take.
    """

    original: Image.Image
    decoded: Image.Image
    psnr: float
    num_codes: int
    num_positions: int
    num_bytes: int
    raw_bytes: int


def reconstruct(pipe: DallePipeline, pixels: torch.Tensor) -> Reconstruction:
    """Encodes and decodes a picture `(3, H, W)` in [0, 1]."""
    indices = encode(pipe, pixels[None])
    decoded = decode(pipe, indices)
    error = float((decoded - pixels[None]).square().mean())
    original, reconstruction = to_pictures(pipe, torch.cat([pixels[None], decoded.clamp(0, 1)]))
    bits = math.ceil(math.log2(pipe.dvae.config.num_embeddings)) * indices.numel()
    return Reconstruction(
        original=enlarge(original, SHOWN_SIDE),
        decoded=enlarge(reconstruction, SHOWN_SIDE),
        psnr=math.inf if error == 0 else -10 * math.log10(error),
        num_codes=len(indices.unique()),
        num_positions=indices.numel(),
        num_bytes=math.ceil(bits / 8),
        raw_bytes=pixels.numel(),
    )
