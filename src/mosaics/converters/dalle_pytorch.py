r"""DALLE-pytorch (https://github.com/lucidrains/DALLE-pytorch), versions 1.5 to 1.6: `dalle.pt`.

A dictionary of `hparams`, `vae_params`, `weights` and the state of training. The weights hold the image tokenizer too:
`vae.encoder...`, the project's own; `vae.enc.blocks...`, OpenAI's; or `vae.model...`, a VQGAN of taming-transformers.

    text_emb, image_emb                       embedding.text_tokens, image_tokens; slices of to_logits.1 if shared
    text_pos_emb, image_pos_emb.weights_0, 1  embedding.text_positions, rows, columns; or
    transformer.pos_emb                       rotary.angles
    transformer.layers.layers.N.0, 1, or transformer.layers.blocks.N.f, g    layers.N, attention and feed-forward
    ... scale, fn.norm, fn.norm_out           ... attention_scale, attention_norm, attention_output_norm
    ... to_qkv, to_out.0 and net.0, net.3     ... attention.qkv, output and feed_forward.up, down
    to_logits.0                               head_norm
    to_logits.1                               text_head and image_head, one after the other

Between `fn.norm` and a layer stand as many `fn.` as it has wrappers, which says whether tokens are shifted.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mosaics.converters.dalle_pytorch_vae import is_dalle_pytorch_vae, saved_weights, vae_part
from mosaics.converters.errors import KeyMismatchError, UnsupportedVariantError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.formats import Conversion, ConvertedPart, ForeignFormat, weight_files
from mosaics.converters.key_ledger import SAME, KeyLedger, Layout
from mosaics.converters.openai_dvae import openai_dvae_part
from mosaics.converters.pipeline_folder import id_of_codebook, use_of_pipeline, write_dalle_pipeline
from mosaics.converters.taming import only_file, taming_vqgan
from mosaics.converters.text_tokenizers import find_tokenizer
from mosaics.converters.vqgan_keys import DEFAULT_IMAGE_SIZE
from mosaics.models.dalle.dalle_pytorch import DallePytorchTransformer, DallePytorchTransformerConfig
from mosaics.models.dalle.dalle_pytorch.attention_types import ATTENTION_TYPES

FIRST_VERSION = (1, 5)  # earlier ones have another window of conv_like, and some other layers
LAYER_KEY = re.compile(r"transformer\.layers\.(?:layers\.(\d+)\.([01])|blocks\.(\d+)\.([fg])\.net)\.(.+)")
INNER_NAMES = (
    (re.compile(r"scale"), "{branch}_scale.scale"),
    (re.compile(r"fn\.norm\.(weight|bias)"), "{branch}_norm.{0}"),
    (re.compile(r"fn\.norm_out\.(weight|bias)"), "{branch}_output_norm.{0}"),
    (re.compile(r"(?:fn\.)+to_qkv\.(weight)"), "attention.qkv.{0}"),
    (re.compile(r"(?:fn\.)+to_out\.0\.(weight|bias)"), "attention.output.{0}"),
    (re.compile(r"(?:fn\.)+net\.0\.(weight|bias)"), "feed_forward.up.{0}"),
    (re.compile(r"(?:fn\.)+net\.3\.(weight|bias)"), "feed_forward.down.{0}"),
)
WRAPPERS = {2: False, 4: True}  # times `fn.` before a feed-forward layer: whether tokens are shifted
FLATTENED = Layout(torch.flatten, lambda tensor: tensor[None, None])
FIRST_OF_ONE = Layout(lambda tensor: tensor[0], lambda tensor: tensor[None])
ROWS = Layout(lambda tensor: tensor[0, :, 0], lambda tensor: tensor[None, :, None])
COLUMNS = Layout(lambda tensor: tensor[0, 0], lambda tensor: tensor[None, None])
KNOWN_SETTINGS = frozenset(
    "num_text_tokens text_seq_len dim depth heads dim_head reversible loss_img_weight attn_types ff_dropout "
    "attn_dropout stable sandwich_norm shift_tokens rotary_emb shared_attn_ids shared_ff_ids share_input_output_emb "
    "sparse_attn optimize_for_inference".split()
)
TRAINING_STATE = ("epoch", "opt_state", "scheduler_state")


class DallePytorchFormat(ForeignFormat):
    """`dalle.pt`, and a tokenizer, to the parts of a `DallePipeline`."""

    name = "dalle-pytorch"
    description = "A DALL-E trained with DALLE-pytorch: DallePytorchTransformer, its image tokenizer, its tokenizer."
    sources = ("dalle.pt", "the tokenizer, for a whole pipeline: its .json, or CLIP's bpe_simple_vocab_16e6.txt")
    project = "https://github.com/lucidrains/DALLE-pytorch"
    license = "unknown"
    weights_license = (
        "The project is under the MIT license; the license of the weights is whoever trained them to say."
    )

    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the only weights are those of such a transformer."""
        files = weight_files(files)
        return bool(files) and all(_is_dalle_pytorch(saved_weights(file)) for file in files)

    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """Transformer, image tokenizer, and the tokenizer if there is one."""
        file = only_file(files, self.name)
        weights = saved_weights(file)
        own = {key: tensor for key, tensor in weights.items() if not key.startswith("vae.")}
        inner = {key.removeprefix("vae."): tensor for key, tensor in weights.items() if key.startswith("vae.")}
        tokenizer_part, codebook = _image_tokenizer(file, inner)
        ledger = KeyLedger(own, source=file.name)
        config = _config(ledger, file, tokenizer_part.model.config, codebook)
        _move(ledger, config)
        with torch.device("meta"):
            transformer = DallePytorchTransformer(config)
        parts = [ConvertedPart(transformer, ledger, subfolder="transformer"), tokenizer_part]
        tokenizer = find_tokenizer(files, config.max_text_length, config.text_vocab_size)
        image_tokenizer = type(tokenizer_part.model).__name__
        left_out = {name: "state of training" for name in TRAINING_STATE if file.content.get(name) is not None}
        conversion = Conversion(parts, left_out=left_out)
        if tokenizer is None:
            conversion.use = _use(image_tokenizer)
        else:
            conversion.write_others = partial(
                write_dalle_pipeline,
                tokenizer=tokenizer,
                image_tokenizer=image_tokenizer,
                transformer="DallePytorchTransformer",
            )
            conversion.use, conversion.is_pipeline = use_of_pipeline(), True
        return conversion


def _is_dalle_pytorch(weights: Mapping[str, torch.Tensor]) -> bool:
    return "to_logits.1.weight" in weights and any(key.startswith("transformer.layers.") for key in weights)


def _image_tokenizer(file: ForeignFile, weights: dict[str, torch.Tensor]) -> tuple[ConvertedPart, torch.Tensor]:
    """The image tokenizer inside of a checkpoint, and its codebook (K, D)."""
    if is_dalle_pytorch_vae(weights):
        part = vae_part(weights, file.content.get("vae_params"), file.name, subfolder="dvae")
        return part, weights["codebook.weight"]
    if any(key.startswith("enc.blocks.") for key in weights):
        renamed = {
            key.replace("enc.", "encoder.", 1).replace("dec.", "decoder.", 1): tensor
            for key, tensor in weights.items()
        }
        part = openai_dvae_part(renamed, file.name, subfolder="dvae")
        return part, renamed["decoder.blocks.input.w"][:, :, 0, 0].t()
    if any(key.startswith("model.") for key in weights):
        weights = {key.removeprefix("model."): tensor for key, tensor in weights.items()}
        ledger, model = taming_vqgan(file, weights, DEFAULT_IMAGE_SIZE)
        name = "quantize.embed.weight" if model.config.quantizer == "gumbel" else "quantize.embedding.weight"
        return ConvertedPart(model, ledger, subfolder="dvae"), weights[name]
    raise KeyMismatchError(
        f"{file.path} holds no image tokenizer that is known (vae.*; class {file.content.get('vae_class_name')!r})."
    )


def _config(
    ledger: KeyLedger, file: ForeignFile, image_tokenizer: Any, codebook: torch.Tensor
) -> DallePytorchTransformerConfig:
    """What the settings say, compared with the tensors."""
    settings = file.content["hparams"]
    _check_settings(settings, file)
    heads, head_size = settings.get("heads", 8), settings.get("dim_head", 64)
    layers = _layers(ledger)
    kinds = _attention_types(settings, layers, file)
    if "transformer.pos_emb" in ledger:
        rotary_size = ledger.shape("transformer.pos_emb", dim=3)[2]
        if rotary_size > head_size:
            raise UnsupportedVariantError(f"{file.path} rotates {rotary_size} channels of heads of {head_size}.")
    else:
        rotary_size = None
    text_vocab_size, text_length = settings["num_text_tokens"], settings["text_seq_len"]
    total, hidden_size = ledger.shape("to_logits.1.weight", dim=2)
    image_vocab_size = total - text_vocab_size - text_length
    if image_vocab_size != len(codebook):
        raise KeyMismatchError(
            f"{file.path} has {total} logits: beside {text_vocab_size} + {text_length} of the text, "
            f"{image_vocab_size} remain, and its image tokenizer has {len(codebook)} codes."
        )
    qkv = next(key for key in ledger.keys("transformer.") if key.endswith("to_qkv.weight"))
    if ledger.shape(qkv, dim=2)[0] != 3 * heads * head_size:
        raise KeyMismatchError(
            f"{file.path}: {qkv!r} has {ledger.shape(qkv)[0]} rows, not 3 * heads * dim_head = 3 * {heads} * "
            f"{head_size}."
        )
    return DallePytorchTransformerConfig(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        head_size=head_size,
        text_vocab_size=text_vocab_size,
        max_text_length=text_length,
        image_vocab_size=image_vocab_size,
        image_grid_size=image_tokenizer.grid_size,
        attention_types=kinds,
        rotary_size=rotary_size,
        shift_tokens=_shifts_tokens(ledger, settings, file),
        sandwich_norm=bool(ledger.keys("transformer.", "fn.norm_out.weight")),
        reversible=bool(ledger.keys("transformer.layers.blocks.")),
        stable=bool(settings.get("stable", False)),
        attention_dropout=settings.get("attn_dropout", 0.0),
        feed_forward_dropout=settings.get("ff_dropout", 0.0),
        image_loss_weight=settings.get("loss_img_weight", 7),
        codebook_id=id_of_codebook(codebook),
    )


def _check_settings(settings: Any, file: ForeignFile) -> None:
    if not isinstance(settings, dict):
        raise KeyMismatchError(f"{file.path} has no hparams, without which the tensors do not say enough.")
    if unknown := sorted(map(str, set(settings) - KNOWN_SETTINGS)):
        raise UnsupportedVariantError(f"{file.path} was made with {', '.join(unknown)}, which is not known here.")
    for name in ("num_text_tokens", "text_seq_len"):
        if type(settings.get(name)) is not int:
            raise KeyMismatchError(f"{file.path}: hparams must give {name}, got {settings.get(name)!r}.")
    version = str(file.content.get("version") or "")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < FIRST_VERSION:
        raise UnsupportedVariantError(
            f"{file.path} was written by {f'version {version}' if version else 'a version that gave no number'} of "
            "dalle-pytorch; its layers are known here from version 1.5 on. If they are those of 1.5, set the entry "
            "'version' of the file accordingly."
        )


def _layers(ledger: KeyLedger) -> int:
    matches = [match for match in map(LAYER_KEY.fullmatch, ledger.keys("transformer.layers.")) if match]
    return 1 + max((int(match[1] or match[3] or 0) for match in matches), default=-1)


def _attention_types(settings: Mapping[str, Any], layers: int, file: ForeignFile) -> list[str]:
    kinds = settings.get("attn_types") or ("full",)
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if unknown := sorted(set(map(str, kinds)) - set(ATTENTION_TYPES)):
        raise UnsupportedVariantError(
            f"{file.path} has attn_types {', '.join(unknown)}; supported are {', '.join(ATTENTION_TYPES)}. ('sparse' "
            "attends to blocks that DeepSpeed draws at random.)"
        )
    return list(itertools.islice(itertools.cycle(kinds), layers))


def _shifts_tokens(ledger: KeyLedger, settings: Mapping[str, Any], file: ForeignFile) -> bool:
    inner = ledger.keys("transformer.layers.", "net.0.weight")
    depths = {key.count("fn.") for key in inner}
    if len(depths) != 1 or not depths <= set(WRAPPERS):
        raise UnsupportedVariantError(f"{file.path} wraps its layers in a way that is not known: {inner[:1]}.")
    shifts = WRAPPERS[depths.pop()]
    if settings.get("shift_tokens", shifts) != shifts:
        raise KeyMismatchError(
            f"{file.path}: hparams say shift_tokens={not shifts}, the names of the tensors otherwise."
        )
    return shifts


def _move(ledger: KeyLedger, config: DallePytorchTransformerConfig) -> None:
    text_rows = config.text_vocab_size + config.max_text_length
    sizes = (text_rows, config.image_vocab_size)
    for kind in ("weight", "bias"):
        ledger.move(f"to_logits.0.{kind}", f"head_norm.{kind}")
        ledger.split(f"to_logits.1.{kind}", [f"text_head.{kind}", f"image_head.{kind}"], sizes)
    if "text_emb.linear.weight" in ledger:
        logits = ledger.tensor("to_logits.1.weight")
        ledger.fill("embedding.text_tokens.weight", logits[:text_rows])
        ledger.fill("embedding.image_tokens.weight", logits[text_rows:])
        for key in ledger.keys("text_emb.linear.") + ledger.keys("image_emb.linear."):
            ledger.drop_copy(key, of=f"to_logits.1.{key.rsplit('.', 1)[1]}")
    else:
        ledger.move("text_emb.weight", "embedding.text_tokens.weight")
        ledger.move("image_emb.weight", "embedding.image_tokens.weight")
    if config.rotary_size is None:
        ledger.move("text_pos_emb.weight", "embedding.text_positions.weight")
        ledger.move("image_pos_emb.weights_0", "embedding.rows.weight", ROWS)
        ledger.move("image_pos_emb.weights_1", "embedding.columns.weight", COLUMNS)
    else:
        ledger.move("transformer.pos_emb", "rotary.angles", FIRST_OF_ONE)
    for key in ledger.keys("transformer.layers."):
        if (target := _layer_target(key)) is not None:  # else a leftover, which the ledger reports
            ledger.move(key, target, FLATTENED if target.endswith(".scale") else SAME)


def _layer_target(key: str) -> str | None:
    match = LAYER_KEY.fullmatch(key)
    if match is None:
        return None
    layer, place, inner = match[1] or match[3], match[2] or match[4], match[5]
    branch = "attention" if place in "0f" else "feed_forward"
    for pattern, name in INNER_NAMES:
        if found := pattern.fullmatch(inner):
            return f"layers.{layer}.{name.format(*found.groups(), branch=branch)}"
    return None


def _use(image_tokenizer: str) -> str:
    """How the parts are joined by hand."""
    return (
        f"from mosaics import DallePipeline, DallePytorchTransformer, {image_tokenizer}\n\n"
        'transformer = DallePytorchTransformer.from_pretrained(".", subfolder="transformer")\n'
        f'dvae = {image_tokenizer}.from_pretrained(".", subfolder="dvae")\n'
        "pipe = DallePipeline(tokenizer, transformer, dvae)  # with the tokenizer it was trained with"
    )
