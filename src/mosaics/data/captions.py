"""Captions: how one is read from a row, how a tokenizer is trained on many, and how text becomes token ids."""

import functools
import itertools
import json
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CAPTION_COLUMNS = ("text", "caption", "captions", "txt", "prompt", "sentence", "sentences", "json")
MAX_CHARACTERS = 10_000
PAD_TOKEN = "<pad>"


class CaptionError(ValueError):
    """A caption that cannot be used; the message says why."""


def check_caption(caption: Any, name: str = "caption") -> str:
    """Returns a caption with its white space collapsed, or says what is wrong with it.

    Raises:
        CaptionError: If it is no string, empty, longer than 10,000 characters, or holds a lone surrogate (half of a
            two-part character, which no encoding can write).
    """
    if not isinstance(caption, str):
        raise CaptionError(f"{name} must be a string, got {type(caption).__name__}: {str(caption)[:60]!r}.")
    if len(caption) > MAX_CHARACTERS:
        raise CaptionError(
            f"{name} has {len(caption):,} characters; at most {MAX_CHARACTERS:,} are accepted: shorten it."
        )
    try:
        caption.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CaptionError(
            f"{name} holds half of a character (lone surrogate {caption[error.start]!a} at position {error.start}): "
            "decode the text again, for example with errors='replace'."
        ) from error
    cleaned = " ".join(caption.replace("\0", " ").split())
    if not cleaned:
        raise CaptionError(f"{name} is empty.")
    return cleaned


def read_caption(row: Mapping[str, Any], column: str = "auto", choice: int = 0) -> str:
    """Reads the caption of a row, whatever it is called and however it is wrapped.

    Args:
        row: A row of a dataset. The value may be a string, UTF-8 bytes, a list of captions, or a mapping that holds
            one under a usual name (the `json` member of a webdataset).
        column: Name of the column; `"auto"` takes the first of `text`, `caption`, `captions`, `txt`, `prompt`,
            `sentence`, `sentences`, `json` that the row has.
        choice: Which caption of a list is taken, counted modulo its length.

    Raises:
        CaptionError: If there is no such column, or its content is no usable caption.
    """
    if column == "auto":
        column = next((name for name in CAPTION_COLUMNS if name in row), "")
        if not column:
            raise CaptionError(f"No caption column among {sorted(map(str, row))}: name it with caption_column.")
    elif column not in row:
        raise CaptionError(f"No column {column!r}; there are {sorted(map(str, row))}.")
    value = row[column]
    if isinstance(value, (list, tuple)) and value:
        value = value[choice % len(value)]
    if isinstance(value, (bytes, bytearray)):
        try:
            value = bytes(value).decode("utf-8")
            value = json.loads(value) if column == "json" else value
        except ValueError as error:
            raise CaptionError(
                f"column {column!r} is not {'JSON' if column == 'json' else 'UTF-8 text'}: {error}"
            ) from error
    if isinstance(value, Mapping):
        return read_caption(value, "auto", choice)
    return check_caption(value, f"column {column!r}")


def train_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Trains the tokenizer of a DALL-E: lower-cased byte-pair encoding over bytes, so that it can write any text.

    Text is normalised (Unicode NFKC, lower case, white space and control characters collapsed) and split into words;
    words are merged from bytes. The padding token has id 0 and cannot be typed: a caption that contains `<pad>` is
    encoded as those five characters. There are no other special tokens.

    Args:
        captions: The training captions.
        vocab_size: Upper limit of the vocabulary: 1 for padding, 256 bytes, the rest merges. Few captions give fewer.
        max_length: Length that captions are padded to, kept as `model_max_length`.

    Returns:
        A tokenizer that `save_pretrained` writes and `AutoTokenizer.from_pretrained` loads. BPE dropout is never part
        of it: see [`tokenize`].
    """
    if not isinstance(vocab_size, int) or vocab_size < 257:
        raise ValueError(f"vocab_size must be an integer of at least 257 (256 bytes and padding), got {vocab_size!r}.")
    if not isinstance(max_length, int) or max_length < 1:
        raise ValueError(f"max_length must be an integer of at least 1, got {max_length!r}.")
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[\p{Cc}\s]+"), " "),
            normalizers.Strip(),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    checked = (check_caption(caption, f"captions[{number}]") for number, caption in enumerate(captions))
    backend.train_from_iterator(checked, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD_TOKEN,
        model_max_length=max_length,
        padding_side="right",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    captions: str | Sequence[str],
    max_length: int | None = None,
    truncation: bool = False,
    allow_empty: bool = False,
    bpe_dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Turns captions into token ids `(B, max_length)`, padded on the right.

    Args:
        tokenizer: A tokenizer with a padding token, such as one of [`train_tokenizer`].
        captions: One caption or several.
        max_length: Length of a row; the tokenizer's `model_max_length` by default.
        truncation: Cut captions that are too long, with a warning that counts them, instead of refusing them.
        allow_empty: Let an empty caption stand for "no caption": a row of padding only.
        bpe_dropout: Probability with which each merge of the encoding is left out at each step (BPE-Dropout,
            https://arxiv.org/abs/1910.13267); 0.1 in DALL-E's training, always 0 for sampling. A caption that only
            fits without dropout is encoded without.
        generator: Source of the dropout's randomness; torch's global one by default. Equal states give equal ids.

    Raises:
        CaptionError: If a caption is no string, empty, too long, or not writable; the message names it.
    """
    single = isinstance(captions, str)
    if not single and not (isinstance(captions, Sequence) and not isinstance(captions, (bytes, bytearray))):
        raise CaptionError(f"captions must be a string or a list of strings, got {type(captions).__name__}.")
    names = ["caption"] if single else [f"captions[{number}]" for number in range(len(captions))]
    captions = [captions] if single else list(captions)
    max_length = tokenizer.model_max_length if max_length is None else max_length
    if not isinstance(max_length, int) or not 0 < max_length <= 1_000_000:
        raise ValueError(f"max_length must be a positive integer, got {max_length!r}.")
    if not 0 <= bpe_dropout < 1:
        raise ValueError(f"bpe_dropout must be at least 0 and below 1, got {bpe_dropout!r}.")
    if tokenizer.pad_token_id is None:
        raise ValueError("The tokenizer has no padding token: set `tokenizer.pad_token` first.")
    texts = []
    for name, caption in zip(names, captions, strict=True):
        empty = allow_empty and isinstance(caption, str) and not caption.strip()
        texts.append("" if empty else check_caption(caption, name))
    encoded = _encode(tokenizer, texts)
    _check_lengths(encoded, texts, names, max_length, truncation)
    if bpe_dropout:
        encoded = _with_dropout(tokenizer, texts, encoded, max_length, bpe_dropout, generator)
    ids = torch.full((len(texts), max_length), tokenizer.pad_token_id, dtype=torch.long)
    for row, tokens in zip(ids, encoded, strict=True):
        tokens = tokens[:max_length]
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return ids


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Ids without padding; refuses a tokenizer whose own dropout is on, because its ids would change at every call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if getattr(getattr(backend, "model", None), "dropout", None):
        raise ValueError(
            "BPE dropout is active inside the tokenizer: set `tokenizer.backend_tokenizer.model.dropout = None` and "
            "give `bpe_dropout` to `tokenize` while training."
        )
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def _check_lengths(
    encoded: list[list[int]], texts: list[str], names: list[str], max_length: int, truncation: bool
) -> None:
    too_long = [number for number, tokens in enumerate(encoded) if len(tokens) > max_length]
    for number, (tokens, text) in enumerate(zip(encoded, texts, strict=True)):
        if text and not tokens:
            raise CaptionError(f"{names[number]} holds nothing to encode: {text[:60]!r}.")
    if not too_long:
        return
    longest = max(too_long, key=lambda number: len(encoded[number]))
    counts = f"{names[longest]} has {len(encoded[longest])} tokens, the limit is {max_length}"
    if not truncation:
        raise CaptionError(f"{counts}: shorten {texts[longest][:60]!r}, or allow truncation.")
    warnings.warn(f"{len(too_long)} of {len(texts)} captions were cut; {counts}.", stacklevel=3)


def _with_dropout(
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    encoded: list[list[int]],
    max_length: int,
    probability: float,
    generator: torch.Generator | None,
) -> list[list[int]]:
    """Encodes again with merges left out; a caption that then no longer fits keeps its usual ids."""
    seeds = torch.randint(2**62, (len(texts),), generator=generator).tolist()
    encoder = _dropout_encoder(tokenizer)
    dropped = [encoder.encode(text, probability, random.Random(seed)) for text, seed in zip(texts, seeds, strict=True)]
    return [new if len(new) <= max_length else usual for new, usual in zip(dropped, encoded, strict=True)]


class _DropoutEncoder:
    """Byte-pair encoding with dropout whose randomness is given, so that a run can be repeated.

    The `tokenizers` library has the same dropout, but draws from a source of its own that cannot be seeded, and keeps
    the probability inside the model, where it would be saved.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.backend = tokenizer.backend_tokenizer
        model = json.loads(self.backend.to_str())["model"]
        if model.get("type") != "BPE" or self.backend.pre_tokenizer is None:
            raise ValueError("BPE dropout needs a byte-pair encoding tokenizer with a pre-tokenizer.")
        self.vocabulary = model["vocab"]
        self.unknown, self.fuse_unknown = self.vocabulary.get(model.get("unk_token")), model.get("fuse_unk", False)
        pairs = (tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"])
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def encode(self, text: str, probability: float, source: random.Random) -> list[int]:
        """Token ids of one caption."""
        if self.backend.normalizer is not None:
            text = self.backend.normalizer.normalize_str(text)
        words = self.backend.pre_tokenizer.pre_tokenize_str(text) if text else []
        return [
            number for word, _ in words for number in self._ids(self._merge(self._known(word), probability, source))
        ]

    def _known(self, word: str) -> list[str]:
        """The characters of a word; without a token for unknown ones, only those that are tokens."""
        return [character for character in word if self.unknown is not None or character in self.vocabulary]

    def _ids(self, pieces: list[str]) -> list[int]:
        """Ids of the pieces of a word; those without a token have the unknown one, fused ones a single one."""
        ids = [self.vocabulary.get(piece, self.unknown) for piece in pieces]
        repeats = [self.fuse_unknown and before == after == self.unknown for before, after in itertools.pairwise(ids)]
        return [number for number, again in zip(ids, [False, *repeats], strict=False) if not again]

    def _merge(self, pieces: list[str], probability: float, source: random.Random) -> list[str]:
        """Merges the best-ranked pair that survives the dropout, until none does (algorithm 1 of the paper)."""
        while len(pieces) > 1:
            ranked = [
                (self.ranks[pair], place)
                for place, pair in enumerate(itertools.pairwise(pieces))
                if pair in self.ranks and source.random() >= probability
            ]
            if not ranked:
                break
            _, place = min(ranked)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces


@functools.lru_cache(maxsize=4)
def _dropout_encoder(tokenizer: PreTrainedTokenizerFast) -> _DropoutEncoder:
    """The encoder of this tokenizer, made once."""
    return _DropoutEncoder(tokenizer)
