"""The second stage of minDALL-E, written as functions of a state dict with its key names."""

import torch
import torch.nn.functional as F

WIDTH, HEADS, LAYERS, TEXT_LENGTH, GRID = 48, 24, 2, 10, 4


class MinDalleReference:
    """Random weights in the layout of `stage2_last.ckpt`, and what they compute."""

    def __init__(self, text_vocab: int, image_vocab: int):
        self.trace: list[torch.Tensor] = []  # what the layers gave
        self.generator = torch.Generator().manual_seed(1)
        sizes = {
            "tok_emb_img": (image_vocab, WIDTH),
            "tok_emb_txt": (text_vocab, WIDTH),
            "pos_emb_img": (GRID**2, WIDTH),
            "pos_emb_txt": (TEXT_LENGTH, WIDTH),
            "head_img": (image_vocab, WIDTH),
            "head_txt": (text_vocab, WIDTH),
        }
        self.state = {f"{name}.weight": self._normal(*size, scale=0.5) for name, size in sizes.items()}
        for layer in range(LAYERS):
            self._norm(f"blocks.{layer}.ln1")
            self._norm(f"blocks.{layer}.ln2")
            for name in ("key", "query", "value", "proj"):
                self._linear(f"blocks.{layer}.attn.{name}", WIDTH, WIDTH)
            self._linear(f"blocks.{layer}.mlp.0", WIDTH, 4 * WIDTH)
            self._linear(f"blocks.{layer}.mlp.2", 4 * WIDTH, WIDTH)
        self._norm("ln_f")

    def _normal(self, *shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=self.generator)

    def _linear(self, name: str, inputs: int, outputs: int) -> None:
        self.state[f"{name}.weight"] = self._normal(outputs, inputs, scale=1.5 * inputs**-0.5)
        self.state[f"{name}.bias"] = self._normal(outputs, scale=0.1)

    def _norm(self, name: str) -> None:
        self.state[f"{name}.weight"] = 1 + self._normal(WIDTH, scale=0.2)
        self.state[f"{name}.bias"] = self._normal(WIDTH, scale=0.2)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            self.linear(f"{name}.{part}", x).view(batch, length, HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        scores = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), float("-inf"))
        attended = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(x.shape)
        return self.linear(f"{name}.proj", attended)

    def logits(self, texts: torch.Tensor, images: torch.Tensor, gelu=F.gelu) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) and (B, N) tokens to the logits of the texts after the first token, and of all image tokens."""
        texts = F.embedding(texts, self.state["tok_emb_txt.weight"]) + self.state["pos_emb_txt.weight"]
        images = F.embedding(images, self.state["tok_emb_img.weight"]) + self.state["pos_emb_img.weight"]
        x = torch.cat([texts, images], dim=1)
        for layer in range(LAYERS):
            x = x + self.attend(f"blocks.{layer}.attn", self.norm(f"blocks.{layer}.ln1", x))
            inner = gelu(self.linear(f"blocks.{layer}.mlp.0", self.norm(f"blocks.{layer}.ln2", x)))
            x = x + self.linear(f"blocks.{layer}.mlp.2", inner)
            self.trace.append(x)
        x = self.norm("ln_f", x)
        return self.linear("head_txt", x[:, : TEXT_LENGTH - 1]), self.linear("head_img", x[:, TEXT_LENGTH - 1 : -1])
