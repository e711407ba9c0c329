"""The transformer of ruDALL-E, versions 2 and 3, written as functions of a state dict with its key names."""

import torch
import torch.nn.functional as F

WIDTH, HEADS, LAYERS, TEXT_LENGTH, TEXT_VOCAB, IMAGE_VOCAB = 48, 4, 4, 12, 60, 40


class RuDalleReference:
    """Random weights in the layout of `pytorch_model_v3.bin` or of `pytorch_model_v2.bin`, and what they compute."""

    def __init__(self, version: int = 3, grid: int = 12):
        self.version, self.grid = version, grid
        self.trace: list[torch.Tensor] = []  # what the layers gave
        self.generator = torch.Generator().manual_seed(2)
        sizes = {
            "text_embeddings": TEXT_VOCAB + TEXT_LENGTH,
            "image_embeddings": IMAGE_VOCAB,
            "text_pos_embeddings": TEXT_LENGTH + 1,
            "image_row_embeddings": grid,
            "image_col_embeddings": grid,
        }
        self.state = {f"{name}.weight": self._normal(size, WIDTH, scale=0.7) for name, size in sizes.items()}
        self._norm("transformer.final_layernorm")
        self._norm("to_logits.0")
        self._linear("to_logits.1", WIDTH, TEXT_VOCAB + TEXT_LENGTH + IMAGE_VOCAB)
        for layer in range(LAYERS):
            name = f"transformer.layers.{layer}"
            for norm in ("input", "before_first_addition", "post_attention", "before_second_addition"):
                self._norm(f"{name}.{norm}_layernorm")
            self._linear(f"{name}.attention.query_key_value", WIDTH, 3 * WIDTH)
            self._linear(f"{name}.attention.dense", WIDTH, WIDTH)
            self._linear(f"{name}.mlp.dense_h_to_4h", WIDTH, 4 * WIDTH)
            self._linear(f"{name}.mlp.dense_4h_to_h", 4 * WIDTH, WIDTH)
        for kind in ("row", "col", "conv"):
            self.state[f"transformer.{kind}_mask"] = self.mask(kind, wrap=version == 2)

    def _normal(self, *shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=self.generator)

    def _linear(self, name: str, inputs: int, outputs: int) -> None:
        self.state[f"{name}.weight"] = self._normal(outputs, inputs, scale=1.5 * inputs**-0.5)
        self.state[f"{name}.bias"] = self._normal(outputs, scale=0.2)

    def _norm(self, name: str) -> None:
        self.state[f"{name}.weight"] = 1 + self._normal(WIDTH, scale=0.3)
        self.state[f"{name}.bias"] = self._normal(WIDTH, scale=0.3)

    def mask(self, kind: str, wrap: bool) -> torch.Tensor:
        """Whether query (row) sees key (column), cell by cell; `wrap` gives the masks of version 2."""
        length = TEXT_LENGTH + self.grid**2
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        for query in range(TEXT_LENGTH, length):
            for key in range(TEXT_LENGTH, query):
                mask[query, key] = self.near(kind, query - TEXT_LENGTH, key - TEXT_LENGTH, wrap)
        return mask

    def near(self, kind: str, query: int, key: int, wrap: bool) -> bool:
        if kind == "row":
            return query - key <= self.grid
        if kind == "col":
            return (query - key) % self.grid == 0
        rows, columns = abs(query // self.grid - key // self.grid), abs(query % self.grid - key % self.grid)
        if wrap:
            rows, columns = min(rows, self.grid - rows), min(columns, self.grid - columns)
        return rows <= 5 and columns <= 5

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attend(self, name: str, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            part.view(batch, length, HEADS, -1).transpose(1, 2)
            for part in self.linear(f"{name}.query_key_value", x).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        scores = torch.where(mask[:length, :length], scores, -10_000.0)
        return self.linear(f"{name}.dense", (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(x.shape))

    def logits(self, texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """(B, T) text and (B, N) image tokens to the logits (B, T + N, all tokens); text id 0 is a pad.

        Version 2 puts a bos token before the text, so that there are (B, T + 1 + N, all tokens).
        """
        texts = torch.where(texts == 0, torch.arange(TEXT_LENGTH) + TEXT_VOCAB, texts)
        if self.version == 2:  # the masks stay where they are
            texts = F.pad(texts, (1, 0), value=2)
        places = self.state["text_pos_embeddings.weight"][: texts.shape[1]]
        texts = self.state["text_embeddings.weight"][texts] + places
        place = torch.arange(images.shape[1])
        rows = self.state["image_row_embeddings.weight"][place // self.grid]
        images = self.state["image_embeddings.weight"][images] + rows
        images = images + self.state["image_col_embeddings.weight"][place % self.grid]
        x = torch.cat([texts, images], dim=1)
        for layer in range(LAYERS):
            name = f"transformer.layers.{layer}"
            kind = "col" if (layer - 1) % 4 == 0 else "row" if layer != LAYERS - 1 else "conv"
            attended = self.attend(
                f"{name}.attention", self.norm(f"{name}.input_layernorm", x), self.state[f"transformer.{kind}_mask"]
            )
            x = x + self.norm(f"{name}.before_first_addition_layernorm", attended)
            inner = self.linear(f"{name}.mlp.dense_h_to_4h", self.norm(f"{name}.post_attention_layernorm", x))
            inner = 0.5 * inner * (1 + torch.tanh(0.7978845608028654 * inner * (1 + 0.044715 * inner * inner)))
            inner = self.linear(f"{name}.mlp.dense_4h_to_h", inner)
            x = x + self.norm(f"{name}.before_second_addition_layernorm", inner)
            self.trace.append(x)
        return self.linear("to_logits.1", self.norm("to_logits.0", self.norm("transformer.final_layernorm", x)))
