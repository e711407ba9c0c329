"""A second implementation of DALLE-pytorch, position by position, on a dictionary of its tensors.

Written from the project's description of its layers, slowly and without its code, to compare with.
"""

import math

import torch
import torch.nn.functional as F

GRID, TEXT, TEXT_TOKENS, CODES = 4, 5, 20, 12  # columns, text positions, text vocabulary, image vocabulary
SIZE, HEADS, HEAD_SIZE = 16, 2, 8


def linear(x, weights, name):
    bias = weights.get(f"{name}.bias")
    y = x @ weights[f"{name}.weight"].T
    return y if bias is None else y + bias


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


# The image tokenizer ------------------------------------------------------------------------------------------------


def vae_weights(layers=2, blocks=1, hidden=6, dim=7, channels=3, seed=0):
    """Tensors of its image tokenizer under the project's names."""
    generator = torch.Generator().manual_seed(seed)
    weights = {"codebook.weight": torch.randn(CODES, dim, generator=generator)}

    def conv(name, outputs, inputs, kernel, transposed=False):
        shape = (inputs, outputs, kernel, kernel) if transposed else (outputs, inputs, kernel, kernel)
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * 1.5 / (inputs * kernel**2) ** 0.5
        weights[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    def block(name):
        for number, kernel in ((0, 3), (2, 3), (4, 1)):
            conv(f"{name}.net.{number}", hidden, hidden, kernel)

    for number in range(layers):
        conv(f"encoder.{number}.0", hidden, hidden if number else channels, 4)
    for number in range(blocks):
        block(f"encoder.{layers + number}")
    conv(f"encoder.{layers + blocks}", CODES, hidden, 1)
    place = 0
    if blocks:
        conv("decoder.0", hidden, dim, 1)
        place = 1
        for _ in range(blocks):
            block(f"decoder.{place}")
            place += 1
    for number in range(layers):
        conv(f"decoder.{place}.0", hidden, hidden if blocks or number else dim, 4, transposed=True)
        place += 1
    conv(f"decoder.{place}", channels, hidden, 1)
    return weights


def run_sequence(weights, side, x):
    """All layers of one side, by the numbers and kinds of their names."""
    numbers = {int(key.split(".")[1]) for key in weights if key.startswith(side)}
    for number in sorted(numbers):
        name = f"{side}.{number}"
        if f"{name}.net.0.weight" in weights:
            inner = x
            for place in (0, 2, 4):
                weight = weights[f"{name}.net.{place}.weight"]
                inner = F.conv2d(inner, weight, weights[f"{name}.net.{place}.bias"], padding=weight.shape[-1] // 2)
                inner = inner if place == 4 else inner.clamp(min=0)
            x = inner + x
        elif f"{name}.0.weight" in weights:
            convolve = F.conv2d if side == "encoder" else F.conv_transpose2d
            x = convolve(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], stride=2, padding=1).clamp(min=0)
        else:
            x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return x


def vae_logits(weights, pixels):
    return run_sequence(weights, "encoder", (pixels - 0.5) / 0.5)


def vae_decode(weights, indices):
    vectors = weights["codebook.weight"][indices].permute(0, 3, 1, 2)
    return run_sequence(weights, "decoder", vectors)


# The transformer ----------------------------------------------------------------------------------------------------


def angles():
    """What the project computes with rotary-embedding-torch, for heads whose third is even."""
    third = HEAD_SIZE // 3
    table = torch.zeros(TEXT + 1 + GRID**2, 3, third)
    for position in range(len(table)):
        image = position - TEXT - 1
        sides = [-1 + 2 * side / (GRID - 1) for side in (image // GRID, image % GRID)] if image >= 0 else [-10.0] * 2
        for pair in range(third // 2):
            step = 0 if third == 2 else pair / (third // 2 - 1)
            for part, value in enumerate([8192.0 if image >= 0 else float(position), *sides]):
                frequency = 10000 ** (-2 * pair / third) if part == 0 else math.pi * (1 + 4 * step)
                table[position, part, 2 * pair : 2 * pair + 2] = value * frequency
    return table.flatten(1)


def dalle_weights(depth=4, rotary=True, shift=True, sandwich=False, reversible=False, shared=False, seed=1):
    """Tensors of the transformer under the project's names."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}

    def random(name, *shape, scale=0.5):
        weights[name] = torch.randn(shape, generator=generator) * scale

    def layer_norm(name):
        random(f"{name}.weight", SIZE)
        weights[f"{name}.weight"] += 1
        random(f"{name}.bias", SIZE)

    total = TEXT_TOKENS + TEXT + CODES
    layer_norm("to_logits.0")
    random("to_logits.1.weight", total, SIZE)
    random("to_logits.1.bias", total)
    if shared:
        for name in ("text_emb", "image_emb"):
            for kind in ("weight", "bias"):
                weights[f"{name}.linear.{kind}"] = weights[f"to_logits.1.{kind}"]
    else:
        random("text_emb.weight", TEXT_TOKENS + TEXT, SIZE)
        random("image_emb.weight", CODES, SIZE)
    if rotary:
        weights["transformer.pos_emb"] = angles()[None]
    else:
        random("text_pos_emb.weight", TEXT + 1, SIZE)
        random("image_pos_emb.weights_0", 1, GRID, 1, SIZE)
        random("image_pos_emb.weights_1", 1, 1, GRID, SIZE)
    for layer in range(depth):
        for place, branch in enumerate("fg"):
            name = f"blocks.{layer}.{branch}.net" if reversible else f"layers.{layer}.{place}"
            name = f"transformer.layers.{name}"
            random(f"{name}.scale", 1, 1, SIZE)
            layer_norm(f"{name}.fn.norm")
            if sandwich:
                layer_norm(f"{name}.fn.norm_out")
            wrapped = f"{name}.fn.fn" + ".fn.fn" * shift + ".fn" * (place == 0)
            if place == 0:
                random(f"{wrapped}.to_qkv.weight", 3 * HEADS * HEAD_SIZE, SIZE)
                random(f"{wrapped}.to_out.0.weight", SIZE, HEADS * HEAD_SIZE)
                random(f"{wrapped}.to_out.0.bias", SIZE)
            else:
                random(f"{wrapped}.net.0.weight", 8 * SIZE, SIZE)
                random(f"{wrapped}.net.0.bias", 8 * SIZE)
                random(f"{wrapped}.net.3.weight", SIZE, 4 * SIZE)
                random(f"{wrapped}.net.3.bias", SIZE)
    return weights


def sees(kind, query, key):
    """Whether a position of the stream sees another one."""
    if key > query:
        return False
    if key <= TEXT or kind == "full":
        return True
    (row, column), (above, left) = divmod(query - TEXT - 1, GRID), divmod(key - TEXT - 1, GRID)
    if kind == "axial_row":
        return row == above
    if kind == "axial_col":
        return column == left
    return row - above < 5 and 0 <= column - left < 5


def shifted(x):
    """Every token with the channels it takes over."""
    result = x.clone()
    for position in range(x.shape[1]):
        image = position - TEXT - 1
        if image < 0:
            half = SIZE // 2
            result[:, position, :half] = x[:, position - 1, :half] if position else 0
            continue
        row, column = divmod(image, GRID)
        quarter = SIZE // 4
        result[:, position, :quarter] = x[:, position - GRID, :quarter] if row else 0
        result[:, position, quarter : 2 * quarter] = x[:, position - 1, quarter : 2 * quarter] if column else 0
    return result


def turned(x, table):
    """The first channels as complex numbers, turned by the angles of each position."""
    size = table.shape[1]
    numbers = torch.view_as_complex(x[..., :size].unflatten(-1, (-1, 2)).contiguous())
    numbers = numbers * torch.polar(torch.ones(size // 2), table[: x.shape[-2], ::2])
    return torch.cat([torch.view_as_real(numbers).flatten(-2), x[..., size:]], dim=-1)


def attention(x, weights, name, kind):
    batch, length, _ = x.shape
    parts = linear(x, weights, f"{name}.to_qkv").chunk(3, dim=-1)
    query, key, value = (part.view(batch, length, HEADS, HEAD_SIZE).transpose(1, 2) for part in parts)
    if "transformer.pos_emb" in weights:
        query, key, value = (turned(part, weights["transformer.pos_emb"][0]) for part in (query, key, value))
    scores = query @ key.transpose(-1, -2) / HEAD_SIZE**0.5
    mask = torch.tensor([[sees(kind, q, k) for k in range(length)] for q in range(length)])
    attended = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value
    return linear(attended.transpose(1, 2).reshape(batch, length, -1), weights, f"{name}.to_out.0")


def feed_forward(x, weights, name):
    value, gate = linear(x, weights, f"{name}.net.0").chunk(2, dim=-1)
    return linear(value * gate * (1 + torch.erf(gate / 2**0.5)) / 2, weights, f"{name}.net.3")


def branch(x, weights, prefix, kind=None):
    """One branch of a layer, with everything around it."""
    marker = "to_qkv.weight" if kind else "net.0.weight"
    (name,) = [key.removesuffix(f".{marker}") for key in weights if key.startswith(prefix) and key.endswith(marker)]
    x = norm(x, weights, f"{prefix}.fn.norm")
    if ".fn.fn.fn.fn" in name:
        x = shifted(x)
    x = attention(x, weights, name, kind) if kind else feed_forward(x, weights, name)
    if f"{prefix}.fn.norm_out.weight" in weights:
        x = norm(x, weights, f"{prefix}.fn.norm_out")
    return x * weights[f"{prefix}.scale"]


def dalle_logits(weights, text, image, kinds, stable=False):
    """Logits (B, 1 + T + n, all tokens) of texts (B, T) and the first n image tokens (B, n), unmasked."""
    logits = weights["to_logits.1.weight"]
    text_table = weights.get("text_emb.weight", logits[: TEXT_TOKENS + TEXT])
    image_table = weights.get("image_emb.weight", logits[TEXT_TOKENS + TEXT :])
    numbered = [[token or TEXT_TOKENS + place for place, token in enumerate(row)] for row in text.tolist()]
    x = text_table[torch.tensor([[0, *row] for row in numbered])]
    pictures = image_table[image]
    if "text_pos_emb.weight" in weights:
        x = x + weights["text_pos_emb.weight"]
        rows, columns = weights["image_pos_emb.weights_0"][0, :, 0], weights["image_pos_emb.weights_1"][0, 0]
        places = [rows[place // GRID] + columns[place % GRID] for place in range(image.shape[1])]
        pictures = pictures + torch.stack(places) if places else pictures
    x = torch.cat([x, pictures], dim=1)
    if any(key.startswith("transformer.layers.blocks") for key in weights):
        one = two = x
        for layer, kind in enumerate(kinds):
            one = one + branch(two, weights, f"transformer.layers.blocks.{layer}.f.net", kind)
            two = two + branch(one, weights, f"transformer.layers.blocks.{layer}.g.net")
        x = (one + two) / 2
    else:
        for layer, kind in enumerate(kinds):
            x = x + branch(x, weights, f"transformer.layers.layers.{layer}.0", kind)
            x = x + branch(x, weights, f"transformer.layers.layers.{layer}.1")
    if stable:
        x = x / x.max(-1, keepdim=True).values
    return linear(norm(x, weights, "to_logits.0"), weights, "to_logits.1")
