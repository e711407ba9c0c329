"""The text tokenizers that go with a checkpoint of DALLE-pytorch, as tokenizers of transformers."""

import json
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mosaics.converters.errors import ForeignFileError, KeyMismatchError
from mosaics.converters.foreign_files import ForeignFile

CLIP_HEADER = "bpe_simple_vocab_16e6.txt#version"
CLIP_MERGES = 49152 - 256 - 2
CLIP_WORDS = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
MAX_BYTES = 64 * 2**20


def find_tokenizer(
    files: Sequence[ForeignFile], max_text_length: int, text_vocab_size: int
) -> PreTrainedTokenizerFast | None:
    """The tokenizer among some files, padded with token 0; `None` if there is none.

    Args:
        files: The files.
        max_text_length: Tokens of a padded text.
        text_vocab_size: Text tokens of the transformer.

    Raises:
        ForeignFileError: A file is damaged.
        KeyMismatchError: There are two, or it has another number of tokens than the transformer.
    """
    found = []
    for file in files:
        text = _text(file)
        if text is not None and text.startswith(("{", "[")):
            backend = _from_json(file, text)
        elif text is not None and CLIP_HEADER in text[:200]:
            backend = clip_tokenizer(text)
        else:
            continue
        if backend is not None:
            found.append((file, backend))
    if not found:
        return None
    if len(found) > 1:
        raise KeyMismatchError(f"{found[0][0].path} and {found[1][0].path} are both tokenizers: give one.")
    file, backend = found[0]
    if backend.get_vocab_size() > text_vocab_size:
        raise KeyMismatchError(
            f"{file.path} has {backend.get_vocab_size()} tokens, the transformer {text_vocab_size}: give the "
            "tokenizer that it was trained with."
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=backend.id_to_token(0),
        model_max_length=max_text_length,
        padding_side="right",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def clip_tokenizer(text: str) -> Tokenizer:
    """The tokenizer of CLIP from its list of merges: 49,408 tokens.

    It differs from CLIP's for texts with broken encodings or HTML entities, which CLIP mends first.
    """
    lines = [line.split() for line in text.split("\n")[1 : CLIP_MERGES + 1]]
    if len(lines) != CLIP_MERGES or any(len(pair) != 2 for pair in lines):
        raise ForeignFileError(f"the list of CLIP's merges is incomplete: {CLIP_MERGES} lines of two are expected.")
    merges = [(first, second) for first, second in lines]
    letters = _byte_letters()
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(CLIP_WORDS, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.Sequence([decoders.Replace("</w>", " "), decoders.ByteLevel()])
    return backend


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes, those first that are printable themselves, as GPT-2 orders them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def _text(file: ForeignFile) -> str | None:
    if file.kind != "other" or file.size > MAX_BYTES:
        return None
    try:
        return file.path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _from_json(file: ForeignFile, text: str) -> Tokenizer | None:
    """A tokenizer of the `tokenizers` library; `None` if the JSON is something else."""
    try:
        entries = json.loads(text)
        if not isinstance(entries, dict) or "model" not in entries or "pre_tokenizer" not in entries:
            return None
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain exceptions
        raise ForeignFileError(f"{file.path} is no readable tokenizer: {error}.") from error
