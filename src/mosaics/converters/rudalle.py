r"""The transformers of ruDALL-E (https://github.com/ai-forever/ru-dalle): Malevich, Kandinsky and their fine-tunings.

    text_embeddings            text_embedding.tokens; its last T rows are the pads of the T positions
    text_pos_embeddings        text_embedding.positions; row T belongs to the second form's additional token
    image_embeddings, image_row_embeddings, image_col_embeddings    image_embedding.tokens, rows, columns
    transformer.layers.N.input_layernorm, post_attention_layernorm    layers.N.attention_norm, feed_forward_norm
    ... before_first_addition_layernorm, before_second_...   ... attention_output_norm, feed_forward_output_norm
    ... attention.query_key_value, dense; mlp.dense_h_to_4h, dense_4h_to_h   ... attention, feed_forward
    transformer.final_layernorm, to_logits.0                 final_norm, head_norm
    to_logits.1                                              text_head and image_head, one after the other

Files come in two forms that have equal names and shapes. In the third version (v3) the convolutional layer sees a
window cut at the edges of the picture, `"window"` here. In the second (v2) one more token stands before the text, and
the attention masks, which wrap around the picture, are not moved with it.

Its program clamps what attention gives to the range of half precision, plus and minus 65,504, which changes nothing
smaller. The tokenizer, `bpe.model` of youtokentome, is not converted: a text is `[2, *ids, 3]`, padded with 0.
"""

from collections.abc import Sequence

import torch

from mosaics.converters.checkpoints import nested_weights
from mosaics.converters.errors import KeyMismatchError, UnsupportedVariantError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import KeyLedger, Layout
from mosaics.converters.taming import only_file
from mosaics.models.dalle import DalleTransformer, DalleTransformerConfig
from mosaics.models.dalle.attention_patterns import may_attend

KERNEL_SIZE = 11
HEADS = {2048: 16, 3840: 60}  # of Malevich and Kandinsky, by width: the files do not say
CONV_MASK = "transformer.conv_mask"
LAYER_NAMES = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "before_first_addition_layernorm": "attention_output_norm",
    "before_second_addition_layernorm": "feed_forward_output_norm",
    "attention.query_key_value": "attention.qkv",
    "attention.dense": "attention.output",
    "mlp.dense_h_to_4h": "feed_forward.up",
    "mlp.dense_4h_to_h": "feed_forward.down",
}


class RuDalleV3Format(ForeignFormat):
    """A state dict of the third version, to a [`DalleTransformer`]."""

    name = "rudalle-v3"
    description = "A transformer of ruDALL-E, version 3 (Malevich, Kandinsky, Surrealist), as a DalleTransformer."
    sources = ("pytorch_model_v3.bin or pytorch_model.bin",)
    project = "https://github.com/ai-forever/ru-dalle"
    license = "apache-2.0"
    weights_license = "The project and the weights it links to are under the Apache license 2.0."

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of such a transformer, its saved mask, if any, that of version 3."""
        return _are_of_version(files, window_mask=True)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The tensors under our names."""
        file = only_file(files, self.name)
        ledger = KeyLedger(nested_weights(file, "state_dict"), source=file.name)
        config = _config(ledger)
        _move(ledger, config)
        with torch.device("meta"):
            model = DalleTransformer(config)
        left_out = {file.name: "no weights; the tokenizer is not converted" for file in files if file.kind == "other"}
        return Conversion([ConvertedPart(model, ledger)], left_out=left_out)


class RuDalleV2Format(RuDalleV3Format):
    """A state dict of the second version, which is refused."""

    name = "rudalle-v2"
    description = "A transformer of ruDALL-E, version 2 (Malevich v2, Emojich): recognised, and not converted."
    sources = ("pytorch_model_v2.bin or pytorch_model.bin",)

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of such a transformer, its saved mask, if any, not that of version 3."""
        return _are_of_version(files, window_mask=False)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """Refuses."""
        file = only_file(files, self.name)
        raise UnsupportedVariantError(
            f"{file.path} is of ruDALL-E's version 2, which puts one more token before the text and leaves the masks "
            "where they were: the last text token counts as the first of the picture, and every pattern is off by "
            "one. No attention pattern of DalleTransformer is like that. If the file is of version 3, give "
            "format='rudalle-v3'."
        )


def _are_of_version(files: Sequence[ForeignFile], window_mask: bool) -> bool:
    """Whether the only weights are those of a transformer whose saved mask, if any, is the window or is not."""
    files = weight_files(files)
    return bool(files) and all(_is_rudalle(file) and _has_window_mask(file) in (window_mask, None) for file in files)


def _is_rudalle(file: ForeignFile) -> bool:
    weights = nested_weights(file, "state_dict")
    return {"image_row_embeddings.weight", "transformer.layers.0.attention.query_key_value.weight"} <= set(weights)


def _has_window_mask(file: ForeignFile) -> bool | None:
    """Whether the saved mask of the convolutional layer is that of version 3; `None` if none was saved."""
    weights = nested_weights(file, "state_dict")
    if CONV_MASK not in weights:
        return None
    grid_size = len(weights["image_row_embeddings.weight"])
    mask = weights[CONV_MASK].bool()
    position = torch.arange(len(mask))
    window = may_attend(
        "window",
        position[:, None],
        position[None, :],
        text_length=len(mask) - grid_size**2,
        grid_size=grid_size,
        kernel_size=KERNEL_SIZE,
    )
    return torch.equal(mask, window)


def _patterns(num_layers: int) -> list[str]:
    """Its rule, layers counted from 0: column where (i - 1) mod 4 = 0, else the window in the last, else row."""
    last = num_layers - 1
    return ["column" if (layer - 1) % 4 == 0 else "window" if layer == last else "row" for layer in range(num_layers)]


def _config(ledger: KeyLedger) -> DalleTransformerConfig:
    """The sizes, read off the tensors."""
    text_vocab_size, hidden_size = ledger.shape("text_embeddings.weight", dim=2)
    if hidden_size not in HEADS:
        known = ", ".join(f"{width} units and {heads} heads" for width, heads in HEADS.items())
        raise UnsupportedVariantError(
            f"{ledger.source} has {hidden_size} units. The file does not say how many attention heads share them; "
            f"known are the models of {known}."
        )
    layers = len(ledger.keys("transformer.layers.", ".input_layernorm.weight"))
    return DalleTransformerConfig(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=HEADS[hidden_size],
        intermediate_size=ledger.shape("transformer.layers.0.mlp.dense_h_to_4h.weight", dim=2)[0],
        text_vocab_size=text_vocab_size,
        max_text_length=ledger.shape("text_pos_embeddings.weight", dim=2)[0] - 1,
        pad_token_id=0,
        image_vocab_size=ledger.shape("image_embeddings.weight", dim=2)[0],
        image_grid_size=ledger.shape("image_row_embeddings.weight", dim=2)[0],
        attention_patterns=_patterns(layers),
        conv_kernel_size=KERNEL_SIZE,
        qk_norm=False,
        sandwich_norm=True,
        head_norm=True,
        head_bias=True,
        hidden_act="gelu_pytorch_tanh",
    )


def _move(ledger: KeyLedger, config: DalleTransformerConfig) -> None:
    length = config.max_text_length
    if config.text_vocab_size <= length:
        raise KeyMismatchError(f"{ledger.source}: 'text_embeddings.weight' has no rows beside the {length} of pads.")
    masks = [key for key in ("transformer.row_mask", "transformer.col_mask", CONV_MASK) if key in ledger]
    ledger.drop(masks, "a mask that the model makes itself")
    ledger.fill("text_embedding.pads.weight", ledger.tensor("text_embeddings.weight")[-length:].clone())
    # The rows of pads stay among the tokens, so that the text head keeps its size.
    ledger.move("text_embeddings.weight", "text_embedding.tokens.weight")
    positions = ledger.tensor("text_pos_embeddings.weight")
    ledger.move("text_pos_embeddings.weight", "text_embedding.positions.weight", _first_rows(positions, length))
    for source, target in (
        ("image_embeddings.weight", "image_embedding.tokens.weight"),
        ("image_row_embeddings.weight", "image_embedding.rows.weight"),
        ("image_col_embeddings.weight", "image_embedding.columns.weight"),
    ):
        ledger.move(source, target)
    for kind in ("weight", "bias"):
        ledger.move(f"transformer.final_layernorm.{kind}", f"final_norm.{kind}")
        ledger.move(f"to_logits.0.{kind}", f"head_norm.{kind}")
        heads = [f"text_head.{kind}", f"image_head.{kind}"]
        ledger.split(f"to_logits.1.{kind}", heads, [config.text_vocab_size, config.image_vocab_size])
        for layer in range(config.num_hidden_layers):
            for theirs, ours in LAYER_NAMES.items():
                ledger.move(f"transformer.layers.{layer}.{theirs}.{kind}", f"layers.{layer}.{ours}.{kind}")


def _first_rows(table: torch.Tensor, count: int) -> Layout:
    """The first rows of a table; the others are not the model's, so going back takes them from the table."""
    return Layout(lambda tensor: tensor[:count], lambda tensor: torch.cat([tensor, table[count:].to(tensor.dtype)]))
