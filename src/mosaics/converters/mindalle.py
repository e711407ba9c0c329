r"""minDALL-E (https://github.com/kakaobrain/minDALL-E), the unpacked archive, to a pipeline.

`stage1_last.ckpt` is a VQGAN with taming's names, `stage2_last.ckpt` a GPT over 64 text and 16 x 16 image tokens:

    tok_emb_txt, pos_emb_txt     text_embedding.tokens, .positions; pads have the vector of the pad token everywhere
    tok_emb_img, pos_emb_img     image_embedding.tokens, .positions, a vector for each position
    blocks.N.ln1, ln2            layers.N.attention_norm, feed_forward_norm
    blocks.N.attn.query, key, value, proj    layers.N.attention.qkv (one after the other), output
    blocks.N.mlp.0, 2            layers.N.feed_forward.up, down
    ln_f, head_txt, head_img     final_norm, text_head, image_head
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tokenizers import CharBPETokenizer
from transformers import PreTrainedTokenizerFast

from mosaics.converters.checkpoints import entry, nested_weights, read_yaml_files
from mosaics.converters.errors import (
    ConversionError,
    ForeignFileError,
    KeyMismatchError,
    MissingSourceError,
    UnsupportedVariantError,
)
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import KeyLedger
from mosaics.converters.pipeline_folder import check_codes, id_of_codebook, use_of_pipeline, write_dalle_pipeline
from mosaics.converters.taming import taming_vqgan
from mosaics.converters.vqgan_keys import DEFAULT_IMAGE_SIZE, TAMING, codebook_of, is_vqgan
from mosaics.models.dalle import DalleTransformer, DalleTransformerConfig

HEADS = 24  # what its program assumes unless config.yaml says otherwise
PAD, UNKNOWN = "[PAD]", "[UNK]"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
LAYER_NAMES = {
    "ln1": "attention_norm",
    "ln2": "feed_forward_norm",
    "attn.proj": "attention.output",
    "mlp.0": "feed_forward.up",
    "mlp.2": "feed_forward.down",
}


class MinDalleFormat(ForeignFormat):
    """`stage1_last.ckpt`, `stage2_last.ckpt`, `config.yaml` and the tokenizer, to the folder of a `DallePipeline`."""

    name = "mindalle"
    description = "minDALL-E, as a DallePipeline: DalleTransformer, VQGAN and tokenizer."
    sources = ("the folder of the unpacked archive: two checkpoints, config.yaml, tokenizer/",)
    project = "https://github.com/kakaobrain/minDALL-E"
    license = "cc-by-nc-sa-4.0"
    weights_license = "The weights are under CC-BY-NC-SA 4.0: not for commercial use, and to be shared alike."
    inert_classes = frozenset({"pytorch_lightning.*", "omegaconf.*"})

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether there is its second stage, and nothing beside it but a VQGAN."""
        weights = [nested_weights(file, "state_dict") for file in weight_files(files)]
        second = [_is_second_stage(held) for held in weights]
        return any(second) and all(
            known or is_vqgan(held, TAMING) for known, held in zip(second, weights, strict=True)
        )

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """Both stages and the tokenizer."""
        first, second = _find_stages(files)
        settings = read_yaml_files(files)
        tokenizer = build_tokenizer(files, _context_length(second))
        image_size = entry(settings, "stage1", "hparams", "resolution")
        vqgan_ledger, vqgan = taming_vqgan(
            first, nested_weights(first, "state_dict"), DEFAULT_IMAGE_SIZE if image_size is None else image_size
        )
        ledger = KeyLedger(nested_weights(second, "state_dict"), source=second.name)
        config = _config(ledger, settings, tokenizer, id_of_codebook(codebook_of(vqgan_ledger, vqgan.config)))
        check_codes(config, second.name, vqgan.config, first.name)
        _move(ledger, config)
        with torch.device("meta"):
            transformer = DalleTransformer(config)
        parts = [
            ConvertedPart(transformer, ledger, subfolder="transformer"),
            ConvertedPart(vqgan, vqgan_ledger, subfolder="dvae"),
        ]
        write_others = partial(write_dalle_pipeline, tokenizer=tokenizer, image_tokenizer="VQGAN")
        return Conversion(parts, write_others=write_others, use=use_of_pipeline(), is_pipeline=True)


def _is_second_stage(weights: Mapping[str, torch.Tensor]) -> bool:
    return {"tok_emb_img.weight", "pos_emb_img.weight", "blocks.0.attn.key.weight"} <= set(weights)


def _find_stages(files: Sequence[ForeignFile]) -> tuple[ForeignFile, ForeignFile]:
    found: dict[str, ForeignFile] = {}
    for file in weight_files(files):
        weights = nested_weights(file, "state_dict")
        stage = "second" if _is_second_stage(weights) else "first"
        if "sos" in weights or "sos.weight" in weights:
            raise UnsupportedVariantError(
                f"{file.path} is the variant for ImageNet (tensor 'sos'): it draws given a class or nothing, and no "
                "text. DalleTransformer reads texts."
            )
        if stage in found:
            raise KeyMismatchError(
                f"{found[stage].path} and {file.path} are both the {stage} stage: give one of each."
            )
        found[stage] = file
    for stage, name in (("first", "stage1_last.ckpt"), ("second", "stage2_last.ckpt")):
        if stage not in found:
            given = ", ".join(str(file.path) for file in found.values()) or "no weights"
            raise MissingSourceError(f"the {stage} stage is missing (got {given}): give {name} too.")
    return found["first"], found["second"]


def _context_length(second: ForeignFile) -> int:
    ledger = KeyLedger(nested_weights(second, "state_dict"), source=second.name)
    return ledger.shape("pos_emb_txt.weight", dim=2)[0]


def _config(
    ledger: KeyLedger, settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast, codes: str
) -> DalleTransformerConfig:
    """The sizes, read off the tensors, and what only config.yaml says."""
    text_vocab_size, hidden_size = ledger.shape("tok_emb_txt.weight", dim=2)
    positions, _ = ledger.shape("pos_emb_img.weight", dim=2)
    options = entry(settings, "stage2", "hparams") or {}
    heads = options.get("n_heads", HEADS)
    if not isinstance(heads, int) or heads < 1 or hidden_size % heads:
        raise ConversionError(f"config.yaml has n_heads={heads!r}, which does not divide the width {hidden_size}.")
    if math.isqrt(positions) ** 2 != positions:
        raise KeyMismatchError(f"{ledger.source} has {positions} image positions, which are no square grid.")
    if len(tokenizer) > text_vocab_size:
        raise KeyMismatchError(
            f"the tokenizer has {len(tokenizer)} tokens, {PAD} included, {ledger.source} has {text_vocab_size}: they "
            "do not belong together."
        )
    layers = {key.split(".")[1] for key in ledger.keys("blocks.", ".ln1.weight")}
    return DalleTransformerConfig(
        hidden_size=hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        intermediate_size=ledger.shape("blocks.0.mlp.0.weight", dim=2)[0],
        text_vocab_size=text_vocab_size,
        max_text_length=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        image_vocab_size=ledger.shape("tok_emb_img.weight", dim=2)[0],
        image_grid_size=math.isqrt(positions),
        attention_patterns=["full"] * len(layers),
        image_positions="learned",
        qk_norm=False,
        hidden_act="quick_gelu" if options.get("gelu_use_approx") else "gelu",
        codebook_id=codes,
    )


def _move(ledger: KeyLedger, config: DalleTransformerConfig) -> None:
    for source, target in (
        ("tok_emb_txt.weight", "text_embedding.tokens.weight"),
        ("pos_emb_txt.weight", "text_embedding.positions.weight"),
        ("tok_emb_img.weight", "image_embedding.tokens.weight"),
        ("pos_emb_img.weight", "image_embedding.positions.weight"),
        ("ln_f.weight", "final_norm.weight"),
        ("ln_f.bias", "final_norm.bias"),
        ("head_txt.weight", "text_head.weight"),
        ("head_img.weight", "image_head.weight"),
    ):
        ledger.move(source, target)
    pad = ledger.tensor("tok_emb_txt.weight")[config.pad_token_id]
    ledger.fill("text_embedding.pads.weight", pad.repeat(config.max_text_length, 1))
    for layer in range(config.num_hidden_layers):
        source, target = f"blocks.{layer}", f"layers.{layer}"
        for kind in ("weight", "bias"):
            for theirs, ours in LAYER_NAMES.items():
                ledger.move(f"{source}.{theirs}.{kind}", f"{target}.{ours}.{kind}")
            projections = [f"{source}.attn.{name}.{kind}" for name in ("query", "key", "value")]
            ledger.join(projections, f"{target}.attention.qkv.{kind}")


def build_tokenizer(files: Sequence[ForeignFile], max_length: int) -> PreTrainedTokenizerFast:
    """The tokenizer of `*vocab.json` and `*merges.txt`: lower case, `[PAD]` to `max_length`, the ids of the original.

    Raises:
        ConversionError: One is missing, there are several, or they hold no vocabulary.
    """
    vocabulary, merges = _only_named(files, VOCABULARY), _only_named(files, MERGES)
    try:
        tokens = json.loads(vocabulary.path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ForeignFileError(f"{vocabulary.path} is not valid JSON: {error}") from error
    if not isinstance(tokens, dict) or not all(isinstance(number, int) for number in tokens.values()):
        raise ForeignFileError(f"{vocabulary.path} must hold the ids of tokens by name.")
    try:
        backend = CharBPETokenizer.from_file(str(vocabulary.path), str(merges.path), unk_token=UNKNOWN, lowercase=True)
    except Exception as error:  # the library raises plain Exceptions
        raise ForeignFileError(f"{merges.path} and {vocabulary.path} are no byte-pair encoding: {error}") from error
    backend.add_special_tokens([PAD])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend._tokenizer, pad_token=PAD, unk_token=UNKNOWN, model_max_length=max_length
    )


def _only_named(files: Sequence[ForeignFile], ending: str) -> ForeignFile:
    found = [file for file in files if file.kind == "other" and file.name.endswith(ending)]
    if len(found) != 1:
        given = ", ".join(str(file.path) for file in found) or "none"
        raise MissingSourceError(f"one file *{ending} of the tokenizer is needed, got {given}.")
    return found[0]
