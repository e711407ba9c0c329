"""The two-level VQ-VAE-2 of rosinality, written as functions of a state dict with its key names."""

import torch
import torch.nn.functional as F

CHANNEL, RESIDUAL, BLOCKS, DIM, CODES = 12, 5, 2, 4, 16


class RosinalityReference:
    """Random weights in the layout of `vqvae_*.pt`, and what they compute."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.state: dict[str, torch.Tensor] = {}
        half = CHANNEL // 2
        self._convs("enc_b.blocks", {0: (half, 3, 4), 2: (CHANNEL, half, 4), 4: (CHANNEL, CHANNEL, 3)}, residuals_at=5)
        self._convs("enc_t.blocks", {0: (half, CHANNEL, 4), 2: (CHANNEL, half, 3)}, residuals_at=3)
        self._convs("dec_t.blocks", {0: (CHANNEL, DIM, 3), 4: (CHANNEL, DIM, 4)}, residuals_at=1, transposed=(4,))
        self._convs(
            "dec.blocks",
            {0: (CHANNEL, 2 * DIM, 3), 4: (CHANNEL, half, 4), 6: (half, 3, 4)},
            residuals_at=1,
            transposed=(4, 6),
        )
        self._conv("quantize_conv_t", DIM, CHANNEL, 1)
        self._conv("quantize_conv_b", DIM, DIM + CHANNEL, 1)
        self._conv("upsample_t", DIM, DIM, 4, transposed=True)
        for name in ("quantize_t", "quantize_b"):
            self.state[f"{name}.embed"] = self._normal(DIM, CODES, scale=0.5)
            self.state[f"{name}.cluster_size"] = torch.rand(CODES, generator=self.generator) + 0.5
            self.state[f"{name}.embed_avg"] = self.state[f"{name}.embed"] * self.state[f"{name}.cluster_size"]

    def _normal(self, *shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=self.generator)

    def _conv(self, name: str, first: int, second: int, kernel: int, transposed: bool = False) -> None:
        inputs, outputs = (first, second) if transposed else (second, first)
        self.state[f"{name}.weight"] = self._normal(first, second, kernel, kernel, scale=(inputs * 9) ** -0.5 * 2)
        self.state[f"{name}.bias"] = self._normal(outputs, scale=0.1)

    def _convs(self, name: str, sizes: dict, residuals_at: int, transposed: tuple[int, ...] = ()) -> None:
        for number, size in sizes.items():
            self._conv(f"{name}.{number}", *size, transposed=number in transposed)
        for number in range(residuals_at, residuals_at + BLOCKS):
            self._conv(f"{name}.{number}.conv.1", RESIDUAL, CHANNEL, 3)
            self._conv(f"{name}.{number}.conv.3", CHANNEL, RESIDUAL, 1)

    def conv(self, name: str, x: torch.Tensor, **options) -> torch.Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def up(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    def down(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(name, x, stride=2, padding=1))

    def residuals(self, name: str, first: int, x: torch.Tensor) -> torch.Tensor:
        for number in range(first, first + BLOCKS):
            hidden = F.relu(self.conv(f"{name}.{number}.conv.1", F.relu(x), padding=1))
            x = x + self.conv(f"{name}.{number}.conv.3", hidden)
        return F.relu(x)

    def nearest(self, name: str, vectors: torch.Tensor) -> torch.Tensor:
        codes = self.state[f"{name}.embed"].T
        return (vectors.movedim(1, -1)[..., None, :] - codes).square().sum(dim=-1).argmin(dim=-1)

    def lookup(self, name: str, indices: torch.Tensor) -> torch.Tensor:
        return self.state[f"{name}.embed"].T[indices].movedim(-1, 1)

    def features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels in [0, 1] to the features of top and bottom."""
        x = self.down("enc_b.blocks.2", self.down("enc_b.blocks.0", 2 * pixels - 1))
        bottom = self.residuals("enc_b.blocks", 5, self.conv("enc_b.blocks.4", x, padding=1))
        x = self.conv("enc_t.blocks.2", self.down("enc_t.blocks.0", bottom), padding=1)
        return self.residuals("enc_t.blocks", 3, x), bottom

    def indices(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels in [0, 1] to the codes of top and bottom."""
        top, bottom = self.features(pixels)
        top_indices = self.nearest("quantize_t", self.conv("quantize_conv_t", top))
        x = self.conv("dec_t.blocks.0", self.lookup("quantize_t", top_indices), padding=1)
        decoded = self.up("dec_t.blocks.4", self.residuals("dec_t.blocks", 1, x))
        vectors = self.conv("quantize_conv_b", torch.cat([decoded, bottom], dim=1))
        return top_indices, self.nearest("quantize_b", vectors)

    def pixels(self, top: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in [0, 1]."""
        codes = [self.up("upsample_t", self.lookup("quantize_t", top)), self.lookup("quantize_b", bottom)]
        x = self.residuals("dec.blocks", 1, self.conv("dec.blocks.0", torch.cat(codes, dim=1), padding=1))
        x = self.up("dec.blocks.6", F.relu(self.up("dec.blocks.4", x)))
        return ((x + 1) / 2).clamp(0, 1)
