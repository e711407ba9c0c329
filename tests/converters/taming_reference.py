"""The VQGAN of taming-transformers and LlamaGen, written as functions of a state dict with their key names.

Only key names, shapes and the published mathematics: group normalisation with 32 groups and epsilon 1e-6, swish,
strided convolutions padded on the right and below, nearest upsampling, attention of one head.
"""

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


class Taming:
    """Key names of taming-transformers; `decoder.up` is numbered by resolution, so the highest number runs first."""

    middle = ("block_1", "attn_1", "block_2")

    @staticmethod
    def down(level: int) -> str:
        return f"encoder.down.{level}"

    @staticmethod
    def up(level: int, levels: int) -> str:
        return f"decoder.up.{level}"

    block, attention = "block", "attn"


class LlamaGen:
    """Key names of LlamaGen; the decoder's levels are numbered in the order in which they run."""

    middle = ("0", "1", "2")

    @staticmethod
    def down(level: int) -> str:
        return f"encoder.conv_blocks.{level}"

    @staticmethod
    def up(level: int, levels: int) -> str:
        return f"decoder.conv_blocks.{levels - 1 - level}"

    block, attention = "res", "attn"


class VQGANReference:
    """Random weights in the layout of `spelling`, and what they compute."""

    def __init__(self, spelling=Taming, *, kind="vector", hidden=32, multipliers=(1, 2), blocks=1, attention=(1,)):
        self.spelling, self.kind = spelling, kind
        self.levels, self.blocks, self.attention = len(multipliers), blocks, attention
        self.latent, self.dim, self.codes = 6, 5, 40
        self.generator = torch.Generator().manual_seed(0)
        self.state: State = {}
        self.trace: list[torch.Tensor] = []  # what blocks and attention layers gave, in the order in which they ran
        widths = [hidden * multiplier for multiplier in multipliers]
        self._make_encoder(widths)
        self._make_decoder(widths)
        self._conv("quant_conv", self.latent, self.dim, 1)
        self._conv("post_quant_conv", self.dim, self.latent, 1)
        if kind == "gumbel":
            self._conv("quantize.proj", self.dim, self.codes, 1)
            self.state["quantize.embed.weight"] = self._normal(self.codes, self.dim)
        else:
            self.state["quantize.embedding.weight"] = self._normal(self.codes, self.dim)

    def _normal(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=self.generator)

    def _conv(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        self.state[f"{name}.weight"] = self._normal(
            outputs, inputs, kernel, kernel, scale=(inputs * kernel**2) ** -0.5
        )
        self.state[f"{name}.bias"] = self._normal(outputs, scale=0.1)

    def _norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = 1 + self._normal(channels, scale=0.2)
        self.state[f"{name}.bias"] = self._normal(channels, scale=0.2)

    def _block(self, name: str, inputs: int, outputs: int) -> None:
        self._norm(f"{name}.norm1", inputs)
        self._conv(f"{name}.conv1", inputs, outputs, 3)
        self._norm(f"{name}.norm2", outputs)
        self._conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            self._conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def _attend(self, name: str, channels: int) -> None:
        self._norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            self._conv(f"{name}.{part}", channels, channels, 1)

    def _middle(self, side: str, channels: int) -> None:
        first, attention, second = self.spelling.middle
        self._block(f"{side}.mid.{first}", channels, channels)
        self._attend(f"{side}.mid.{attention}", channels)
        self._block(f"{side}.mid.{second}", channels, channels)

    def _level(self, name: str, level: int, inputs: int, outputs: int, blocks: int) -> None:
        for number in range(blocks):
            self._block(f"{name}.{self.spelling.block}.{number}", inputs if number == 0 else outputs, outputs)
            if level in self.attention:
                self._attend(f"{name}.{self.spelling.attention}.{number}", outputs)

    def _make_encoder(self, widths: list[int]) -> None:
        self._conv("encoder.conv_in", 3, widths[0], 3)
        for level, width in enumerate(widths):
            name = self.spelling.down(level)
            self._level(name, level, widths[max(0, level - 1)], width, self.blocks)
            if level < self.levels - 1:
                self._conv(f"{name}.downsample.conv", width, width, 3)
        self._middle("encoder", widths[-1])
        self._norm("encoder.norm_out", widths[-1])
        self._conv("encoder.conv_out", widths[-1], self.latent, 3)

    def _make_decoder(self, widths: list[int]) -> None:
        self._conv("decoder.conv_in", self.latent, widths[-1], 3)
        self._middle("decoder", widths[-1])
        for level, width in reversed(list(enumerate(widths))):
            name = self.spelling.up(level, self.levels)
            self._level(name, level, widths[min(self.levels - 1, level + 1)], width, self.blocks + 1)
            if level > 0:
                self._conv(f"{name}.upsample.conv", width, width, 3)
        self._norm("decoder.norm_out", widths[0])
        self._conv("decoder.conv_out", widths[0], 3, 3)

    def double(self) -> "VQGANReference":
        """The same, in float64 from now on."""
        self.state = {key: tensor.double() for key, tensor in self.state.items()}
        return self

    def conv(self, name: str, x: torch.Tensor, **options) -> torch.Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv(f"{name}.conv1", swish(self.norm(f"{name}.norm1", x)), padding=1)
        hidden = self.conv(f"{name}.conv2", swish(self.norm(f"{name}.norm2", hidden)), padding=1)
        shortcut = f"{name}.nin_shortcut"
        self.trace.append(hidden + (self.conv(shortcut, x) if f"{shortcut}.weight" in self.state else x))
        return self.trace[-1]

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(f"{name}.norm", x)
        query, key, value = (self.conv(f"{name}.{part}", normed).flatten(start_dim=2) for part in "qkv")
        weights = torch.einsum("bci,bcj->bij", query, key).mul(x.shape[1] ** -0.5).softmax(dim=2)
        attended = torch.einsum("bij,bcj->bci", weights, value).view(x.shape)
        self.trace.append(x + self.conv(f"{name}.proj_out", attended))
        return self.trace[-1]

    def middle(self, side: str, x: torch.Tensor) -> torch.Tensor:
        first, attention, second = (f"{side}.mid.{part}" for part in self.spelling.middle)
        return self.block(second, self.attend(attention, self.block(first, x)))

    def level(self, name: str, level: int, x: torch.Tensor, blocks: int) -> torch.Tensor:
        for number in range(blocks):
            x = self.block(f"{name}.{self.spelling.block}.{number}", x)
            if level in self.attention:
                x = self.attend(f"{name}.{self.spelling.attention}.{number}", x)
        return x

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] to what the encoder gives, before `quant_conv`."""
        x = self.conv("encoder.conv_in", 2 * pixels - 1, padding=1)
        for level in range(self.levels):
            name = self.spelling.down(level)
            x = self.level(name, level, x, self.blocks)
            if level < self.levels - 1:
                x = self.conv(f"{name}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        return self.conv(
            "encoder.conv_out", swish(self.norm("encoder.norm_out", self.middle("encoder", x))), padding=1
        )

    def indices(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] to codes."""
        vectors = self.conv("quant_conv", self.features(pixels))
        if self.kind == "gumbel":
            return self.conv("quantize.proj", vectors).argmax(dim=1)
        codes = self.codebook()
        if self.kind == "normalized":
            vectors = F.normalize(vectors, dim=1)
        return (vectors.movedim(1, -1)[..., None, :] - codes).square().sum(dim=-1).argmin(dim=-1)

    def codebook(self) -> torch.Tensor:
        codes = self.state["quantize.embed.weight" if self.kind == "gumbel" else "quantize.embedding.weight"]
        return F.normalize(codes, dim=1) if self.kind == "normalized" else codes

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in [0, 1]."""
        x = self.conv("post_quant_conv", self.codebook()[indices].movedim(-1, 1))
        x = self.middle("decoder", self.conv("decoder.conv_in", x, padding=1))
        for level in reversed(range(self.levels)):
            name = self.spelling.up(level, self.levels)
            x = self.level(name, level, x, self.blocks + 1)
            if level > 0:
                x = self.conv(f"{name}.upsample.conv", F.interpolate(x, scale_factor=2, mode="nearest"), padding=1)
        x = self.conv("decoder.conv_out", swish(self.norm("decoder.norm_out", x)), padding=1)
        return (x.clamp(-1, 1) + 1) / 2


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)
