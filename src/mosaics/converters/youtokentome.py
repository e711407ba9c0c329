r"""Tokenizers of YouTokenToMe (https://github.com/VKCOM/YouTokenToMe), the `bpe.model` that goes with ruDALL-E.

A file is plain numbers, with white space between them:

    C R                 how many characters and rules follow
    code id             C times: a character and its token
    first second id     R times: two tokens that merge to a third; earlier rules come first
    unk pad bos eos     the special tokens

Words are what stands between ASCII white space, and begin with `▁`. A run of characters that the file does not have is
one unknown token. That is a byte-pair encoding as the `tokenizers` library has it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mosaics.converters.errors import ForeignFileError, KeyMismatchError
from mosaics.converters.foreign_files import ForeignFile

SPACE = "▁"
PAD, UNKNOWN, BOS, EOS = 0, 1, 2, 3  # as ruDALL-E writes them into texts, whatever the file says
PAD_NAME, UNKNOWN_NAME = "<PAD>", "<UNK>"
FIRST_LINE = re.compile(rb"\s*\d{1,9}[ \t]+\d{1,9}\s*?(\n|\Z)")
MAX_BYTES = 8 * 2**20  # 16,384 tokens take about a third of one million bytes
MAX_TOKEN_CHARACTERS = 256  # rules that double a token would fill any memory
PRIVATE_USE = range(0xE000, 0xF900)
# A sigma that ends a word, as Python lower-cases it: after a letter and at most two marks, and not before a letter.
LETTER, MARK = r"[\p{Cased}&&\P{Case_Ignorable}]", r"\p{Case_Ignorable}"
FINAL_SIGMA = Regex(rf"(?<={LETTER}|{LETTER}{MARK}|{LETTER}{MARK}{MARK})Σ(?!{MARK}*{LETTER})")
OUTER_SPACE = Regex(r"\A[\s\x1c-\x1f]+|[\s\x1c-\x1f]+\z")  # what Python strips
BETWEEN_WORDS = f"[\t-\r {SPACE}]+"


@dataclass(frozen=True)
class BytePairs:
    """What a `bpe.model` holds.

    Attributes:
        vocabulary: Ids of characters and of what rules make of them, by how they are spelled.
        merges: The rules, the first to be applied first.
    """

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]


def is_bpe_model(file: ForeignFile) -> bool:
    """Whether a file begins as a `bpe.model`: a line of two numbers."""
    if file.kind != "other":
        return False
    with file.path.open("rb") as stream:
        return FIRST_LINE.match(stream.read(64)) is not None


def find_bpe_model(files: Sequence[ForeignFile]) -> ForeignFile | None:
    """The `bpe.model` among some files; `None` if there is none.

    Raises:
        KeyMismatchError: There are two.
    """
    found = [file for file in files if is_bpe_model(file)]
    if len(found) > 1:
        raise KeyMismatchError(f"{found[0].path} and {found[1].path} are both tokenizers: give one.")
    return found[0] if found else None


def read_bpe_model(file: ForeignFile) -> BytePairs:
    """Reads a `bpe.model`.

    Raises:
        ForeignFileError: It is damaged, cut short, or means something that a byte-pair encoding cannot say.
    """
    if file.size > MAX_BYTES:
        raise ForeignFileError(f"{file.path} has {file.size:,} bytes: no tokenizer is larger than {MAX_BYTES:,}.")
    try:
        numbers = [int(number) for number in file.path.read_bytes().decode("ascii").split()]
    except ValueError as error:
        raise ForeignFileError(
            f"{file.path} begins as a tokenizer of YouTokenToMe, which is numbers only: {error}."
        ) from error
    characters, rules = numbers[:2]
    expected = 2 + 2 * characters + 3 * rules + 4
    if len(numbers) != expected:
        fault = "is cut short" if len(numbers) < expected else "goes on after its end"
        raise ForeignFileError(
            f"{file.path} {fault}: {characters} characters and {rules} rules are {expected} numbers, got "
            f"{len(numbers)}. Download or copy it again."
        )
    special = dict(zip(("unk", "pad", "bos", "eos"), numbers[-4:], strict=True))
    if special != {"unk": UNKNOWN, "pad": PAD, "bos": BOS, "eos": EOS}:
        got = ", ".join(f"{name}={number}" for name, number in special.items())
        raise ForeignFileError(
            f"{file.path} has the special tokens {got}; ruDALL-E writes unk={UNKNOWN}, pad={PAD}, bos={BOS}, "
            f"eos={EOS} into its texts."
        )
    tables = numbers[2:-4]
    return _Spelling(file).read(_grouped(tables[: 2 * characters], 2), _grouped(tables[2 * characters :], 3))


def _grouped(numbers: list[int], size: int) -> list[tuple[int, ...]]:
    return list(zip(*[iter(numbers)] * size, strict=True))


class _Spelling:
    """How every token is spelled, while a file is read."""

    def __init__(self, file: ForeignFile):
        self.file = file
        self.texts = {PAD: PAD_NAME, UNKNOWN: UNKNOWN_NAME, BOS: "", EOS: ""}
        self.ids = {PAD_NAME: PAD, UNKNOWN_NAME: UNKNOWN}

    def read(self, characters: list[tuple[int, ...]], rules: list[tuple[int, ...]]) -> BytePairs:
        for code, number in characters:
            if not 0 <= code < 0x110000 or 0xD800 <= code < 0xE000:
                raise ForeignFileError(f"{self.file.path} has the character {code}, which Unicode does not.")
            self._add(number, chr(code), f"character {code}")
        if SPACE not in self.ids:
            raise ForeignFileError(f"{self.file.path} lacks the character {ord(SPACE)} ({SPACE}), which begins words.")
        merges = []
        for place, (first, second, number) in enumerate(rules):
            pair = tuple(self.texts.get(part, "") for part in (first, second) if part > EOS)
            if len(pair) != 2 or not all(pair):
                raise ForeignFileError(
                    f"{self.file.path}: rule {place} merges the tokens {first} and {second}, of which one is made by "
                    "no character and no earlier rule."
                )
            self._add(number, pair[0] + pair[1], f"rule {place}")
            merges.append(pair)
        return BytePairs(self.ids, merges)

    def _add(self, number: int, text: str, source: str) -> None:
        if number < 0 or number in self.texts:
            raise ForeignFileError(f"{self.file.path}: {source} makes the token {number}, which is taken or negative.")
        if text in self.ids:
            raise ForeignFileError(
                f"{self.file.path}: {source} makes the token {number}, spelled as {self.ids[text]} is: {text[:40]!r}."
            )
        if len(text) > MAX_TOKEN_CHARACTERS:
            raise ForeignFileError(
                f"{self.file.path}: {source} makes a token of {len(text)} characters; at most "
                f"{MAX_TOKEN_CHARACTERS} are read."
            )
        self.texts[number] = text
        self.ids[text] = number


def rudalle_tokenizer(pairs: BytePairs, max_text_length: int, bos_count: int = 1) -> PreTrainedTokenizerFast:
    """The tokenizer of ruDALL-E: lower case, a text between its bos and eos tokens, pads up to `max_text_length`.

    Its program puts bos and eos around every text and knows no text without them. Here they are characters of the
    private use area that the normaliser puts there, so that they do not depend on `add_special_tokens`, and that a
    text which is cut loses its end as it does there. An empty text has none: its row is pads only, "no caption".

    Args:
        pairs: What `bpe.model` holds.
        max_text_length: Tokens of a padded text.
        bos_count: How often the bos token stands before a text.
    """
    bos, eos, other = _unused_characters(pairs.vocabulary, 3)
    vocabulary = {**pairs.vocabulary, bos: BOS, eos: EOS}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs.merges, unk_token=UNKNOWN_NAME, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(FINAL_SIGMA, "ς"),
            normalizers.Lowercase(),
            normalizers.Replace(OUTER_SPACE, ""),
            normalizers.Replace(Regex(f"[{bos}{eos}]"), other),  # typed ones are unknown characters
            normalizers.Replace(Regex(rf"\A{BETWEEN_WORDS}|{BETWEEN_WORDS}\z"), ""),
            normalizers.Replace(Regex(BETWEEN_WORDS), SPACE),
            normalizers.Replace(Regex(r"\A(?=.)"), bos * bos_count + SPACE),
            normalizers.Replace(Regex(r"(?<=.)\z"), eos),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(f"[{bos}{eos}]|{SPACE}[^{SPACE}{eos}]+"), behavior="isolated")
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD_NAME,
        unk_token=UNKNOWN_NAME,
        bos_token=bos,
        eos_token=eos,
        model_max_length=max_text_length,
        padding_side="right",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def _unused_characters(vocabulary: dict[str, int], count: int) -> list[str]:
    unused = [chr(code) for code in PRIVATE_USE if chr(code) not in vocabulary]
    if len(unused) < count:
        raise KeyMismatchError(
            "the tokenizer has every character of Unicode's private use area; bos and eos need two."
        )
    return unused[:count]
