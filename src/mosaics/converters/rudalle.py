r"""The transformers of ruDALL-E (https://github.com/ai-forever/ru-dalle): Malevich, Kandinsky and their fine-tunings.

    text_embeddings            text_embedding.tokens; its last T rows are the pads of the T positions
    text_pos_embeddings        text_embedding.positions; row T is for the second version's additional token
    image_embeddings, image_row_embeddings, image_col_embeddings    image_embedding.tokens, rows, columns
    transformer.layers.N.input_layernorm, post_attention_layernorm    layers.N.attention_norm, feed_forward_norm
    ... before_first_addition_layernorm, before_second_...   ... attention_output_norm, feed_forward_output_norm
    ... attention.query_key_value, dense; mlp.dense_h_to_4h, dense_4h_to_h   ... attention, feed_forward
    transformer.final_layernorm, to_logits.0                 final_norm, head_norm
    to_logits.1                                              text_head and image_head, one after the other

Files come in two versions that have equal names and shapes, told by the mask of the convolutional layer if it was
saved. In the third (v3) it sees a window cut at the edges of the picture, `"window"` here. In the second (v2) the
window goes on at the opposite edge, `"torus"`, one more bos token stands before the text, and the attention masks stay
where they were, so that the last text token counts as the first of the picture, `shifted_patterns`.

Its program clamps what attention gives to the range of half precision, plus and minus 65,504, which changes nothing
smaller. With the VQGAN, which has taming's names, and the tokenizer, `bpe.model`, the transformer makes a pipeline.
"""

from collections.abc import Sequence
from functools import partial

import torch
from transformers import PreTrainedTokenizerFast

from mosaics.converters.checkpoints import YAML_ENDINGS, nested_weights
from mosaics.converters.errors import KeyMismatchError, MissingSourceError, UnsupportedVariantError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import KeyLedger, Layout
from mosaics.converters.pipeline_folder import check_codes, id_of_codebook, use_of_pipeline, write_dalle_pipeline
from mosaics.converters.taming import configured_image_size, taming_vqgan, taming_weights
from mosaics.converters.vqgan_keys import TAMING, codebook_of, is_vqgan
from mosaics.converters.youtokentome import BOS, PAD, find_bpe_model, read_bpe_model, rudalle_tokenizer
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
    """A state dict of the third version, to a [`DalleTransformer`]; with VQGAN and `bpe.model` to a pipeline."""

    name = "rudalle-v3"
    description = "ruDALL-E, version 3 (Malevich, Kandinsky, Surrealist): DalleTransformer, its VQGAN, its tokenizer."
    sources = (
        "pytorch_model_v3.bin or pytorch_model.bin",
        "for a whole pipeline: vqgan.gumbelf8-sber.model.ckpt and bpe.model",
    )
    project = "https://github.com/ai-forever/ru-dalle"
    license = "apache-2.0"
    weights_license = "The project and the weights it links to are under the Apache license 2.0."
    inert_classes = frozenset({"pytorch_lightning.*", "omegaconf.*"})  # of the VQGAN's checkpoint
    conv_pattern = "window"
    extra_bos = 0  # bos tokens that the model puts before the text and its bos token

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether there is such a transformer, its saved mask, if any, of this version, and nothing but a VQGAN."""
        transformers, others = _transformers_and_others(weight_files(files))
        return (
            bool(transformers)
            and all(_conv_pattern(file) in (self.conv_pattern, None) for file in transformers)
            and all(is_vqgan(taming_weights(file), TAMING) for file in others)
        )

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """The transformer alone, or with the VQGAN and the tokenizer."""
        file, vqgan_file, bpe_file = self._find(files)
        ledger = KeyLedger(nested_weights(file, "state_dict"), source=file.name)
        config = _config(ledger, self.conv_pattern, self.extra_bos)
        read = [other for other in files if other is bpe_file or other.path.suffix in YAML_ENDINGS]
        unread = [other.name for other in files if other.kind == "other" and other not in read]
        conversion = Conversion([], left_out=dict.fromkeys(unread, "no weights, and no tokenizer"))
        if vqgan_file is not None and bpe_file is not None:
            tokenizer = _tokenizer(bpe_file, config, file.name, self.extra_bos)
            conversion.parts.append(_vqgan_part(vqgan_file, configured_image_size(files), config, file.name))
            conversion.write_others = partial(write_dalle_pipeline, tokenizer=tokenizer, image_tokenizer="VQGAN")
            conversion.use, conversion.is_pipeline = use_of_pipeline("кот на окне"), True  # it reads Russian
        _move(ledger, config, self.extra_bos)
        with torch.device("meta"):
            model = DalleTransformer(config)
        subfolder = "transformer" if conversion.is_pipeline else ""
        conversion.parts.insert(0, ConvertedPart(model, ledger, subfolder))
        return conversion

    def _find(self, files: Sequence[ForeignFile]) -> tuple[ForeignFile, ForeignFile | None, ForeignFile | None]:
        """The files of transformer, VQGAN and tokenizer; both of the latter or none."""
        transformers, others = _transformers_and_others(weight_files(files))
        if len(transformers) != 1 or len(others) > 1:
            names = ", ".join(str(file.path) for file in transformers + others) or "none"
            raise KeyMismatchError(
                f"{self.name} is one file with the weights of a transformer, and at most one with those of its VQGAN; "
                f"got {names}."
            )
        vqgan, bpe = (others[0] if others else None), find_bpe_model(files)
        if (vqgan is None) != (bpe is None):
            missing = "the VQGAN, vqgan.gumbelf8-sber.model.ckpt" if vqgan is None else "the tokenizer, bpe.model"
            raise MissingSourceError(
                f"of a pipeline, {missing}, is missing: give it too, or {transformers[0].path} alone."
            )
        return transformers[0], vqgan, bpe


class RuDalleV2Format(RuDalleV3Format):
    """The same of the second version."""

    name = "rudalle-v2"
    description = "ruDALL-E, version 2 (Malevich v2, Emojich): DalleTransformer, its VQGAN, its tokenizer."
    sources = ("pytorch_model_v2.bin or pytorch_model.bin", RuDalleV3Format.sources[1])
    conv_pattern = "torus"
    extra_bos = 1


def _transformers_and_others(files: Sequence[ForeignFile]) -> tuple[list[ForeignFile], list[ForeignFile]]:
    """The transformers among files with weights, and the others."""
    keys = {"image_row_embeddings.weight", "transformer.layers.0.attention.query_key_value.weight"}
    transformers = [file for file in files if keys <= set(nested_weights(file, "state_dict"))]
    return transformers, [file for file in files if file not in transformers]


def _conv_pattern(file: ForeignFile) -> str | None:
    """The pattern whose mask was saved for the convolutional layer; `None` if none was, or an unknown one."""
    weights = nested_weights(file, "state_dict")
    if CONV_MASK not in weights:
        return None
    grid_size = len(weights["image_row_embeddings.weight"])
    mask = weights[CONV_MASK].bool()
    if mask.dim() != 2 or not 0 < grid_size**2 < len(mask):
        return None
    position = torch.arange(len(mask))
    for pattern in ("window", "torus"):
        known = may_attend(
            pattern,
            position[:, None],
            position[None, :],
            text_length=len(mask) - grid_size**2,
            grid_size=grid_size,
            kernel_size=KERNEL_SIZE,
        )
        if torch.equal(mask, known):
            return pattern
    return None


def _vqgan_part(file: ForeignFile, image_size: int, config: DalleTransformerConfig, transformer: str) -> ConvertedPart:
    """The VQGAN, whose codes `config` is tied to."""
    ledger, vqgan = taming_vqgan(file, taming_weights(file), image_size)
    check_codes(config, transformer, vqgan.config, file.name)
    config.codebook_id = id_of_codebook(codebook_of(ledger, vqgan.config))
    return ConvertedPart(vqgan, ledger, subfolder="dvae")


def _tokenizer(
    file: ForeignFile, config: DalleTransformerConfig, transformer: str, extra_bos: int
) -> PreTrainedTokenizerFast:
    pairs = read_bpe_model(file)
    tokens = config.text_vocab_size - (config.max_text_length - extra_bos)  # the last ones are the pads of positions
    if (largest := max(pairs.vocabulary.values())) >= tokens:
        raise KeyMismatchError(
            f"{file.path} has tokens up to {largest}, {transformer} up to {tokens - 1}: they do not belong together."
        )
    return rudalle_tokenizer(pairs, config.max_text_length, bos_count=1 + extra_bos)


def _patterns(num_layers: int, conv_pattern: str) -> list[str]:
    """Its rule, layers counted from 0: column where (i - 1) mod 4 = 0, else `conv_pattern` in the last, else row."""
    last = num_layers - 1
    return [
        "column" if (layer - 1) % 4 == 0 else conv_pattern if layer == last else "row" for layer in range(num_layers)
    ]


def _config(ledger: KeyLedger, conv_pattern: str, extra_bos: int) -> DalleTransformerConfig:
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
        max_text_length=ledger.shape("text_pos_embeddings.weight", dim=2)[0] - 1 + extra_bos,
        pad_token_id=PAD,
        image_vocab_size=ledger.shape("image_embeddings.weight", dim=2)[0],
        image_grid_size=ledger.shape("image_row_embeddings.weight", dim=2)[0],
        attention_patterns=_patterns(layers, conv_pattern),
        conv_kernel_size=KERNEL_SIZE,
        shifted_patterns=bool(extra_bos),
        qk_norm=False,
        sandwich_norm=True,
        head_norm=True,
        head_bias=True,
        hidden_act="gelu_pytorch_tanh",
    )


def _move(ledger: KeyLedger, config: DalleTransformerConfig, extra_bos: int) -> None:
    length = config.max_text_length - extra_bos
    if config.text_vocab_size <= length:
        raise KeyMismatchError(f"{ledger.source}: 'text_embeddings.weight' has no rows beside the {length} of pads.")
    masks = [key for key in ("transformer.row_mask", "transformer.col_mask", CONV_MASK) if key in ledger]
    ledger.drop(masks, "a mask that the model makes itself")
    tokens = ledger.tensor("text_embeddings.weight")
    # The additional bos token is there even if the text is pads only.
    ledger.fill("text_embedding.pads.weight", torch.cat([tokens[BOS : BOS + extra_bos], tokens[-length:]]))
    # The rows of pads stay among the tokens, so that the text head keeps its size.
    ledger.move("text_embeddings.weight", "text_embedding.tokens.weight")
    positions = ledger.tensor("text_pos_embeddings.weight")
    ledger.move(
        "text_pos_embeddings.weight", "text_embedding.positions.weight", _first_rows(positions, config.max_text_length)
    )
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
