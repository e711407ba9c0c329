"""Tokenizers of YouTokenToMe: the same ids as a second implementation and as the package itself; damage is named."""

import random

import pytest
from transformers import AutoTokenizer

from converters.youtokentome_reference import YouTokenToMeReference
from mosaics.converters import youtokentome
from mosaics.converters.errors import ForeignFileError, KeyMismatchError
from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.youtokentome import find_bpe_model, read_bpe_model, rudalle_tokenizer
from mosaics.data.captions import tokenize

RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
ALPHABET = RUSSIAN + "abcxyz019.,!?-σς"
# Letters that it does not know, other alphabets, white space of every kind, and what stands for special tokens.
STRANGE = (
    ALPHABET + ALPHABET.upper() + "  \t\n\v\f\r▁\u00a0\u2003\x1c\x1f\x85\ue000\ue001\ue002ѣ日本😀ЇİßΣ’\u0301<PAD>"
)
LENGTH = 24
SOURCE = random.Random(1)
WORDS = ["".join(SOURCE.choices(RUSSIAN, k=SOURCE.randint(2, 8))) for _ in range(120)] + ["aaaaaaa", "abab", "c,c."]
SENTENCES = [
    "Рыжий кот сидит на подоконнике",
    "  два   КОТА\nи собака!  ",
    "ΟΔΥΣΣΕΥΣ, ΣΑΣ Σ ΣΑΣ’",
    "<PAD> <UNK> ▁а▁ \ue000а\ue001",
    "а日本б 日 本б日",
    "съешь же ещё этих мягких французских булок, да выпей чаю, съешь же ещё этих мягких французских булок",
]


@pytest.fixture(scope="module")
def reference():
    return YouTokenToMeReference(ALPHABET, WORDS, num_rules=400)


@pytest.fixture(scope="module")
def model_file(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("yttm") / "bpe.model"
    path.write_text(reference.file())
    return path


def build(path, bos_count=1):
    return rudalle_tokenizer(read_bpe_model(ForeignFile(path)), LENGTH, bos_count)


def texts(count=1500):
    source = random.Random(2)
    pieces = [
        [*WORDS, " "],
        [*WORDS, *(word[:3] for word in WORDS), " "],
        list("ab c,."),
        list(ALPHABET + " "),
        list(STRANGE),
    ]
    drawn = ("".join(source.choices(source.choice(pieces), k=source.randint(1, 30))) for _ in range(count))
    return SENTENCES + [text for text in drawn if text.strip().strip("▁ \t\n\v\f\r")]


def padded(tokenizer, prompts, **options):
    return tokenizer(prompts, padding="max_length", truncation=True, **options)["input_ids"]


def test_ids_equal_those_of_the_reference_before_and_after_saving(reference, model_file, tmp_path):
    tokenizer, prompts = build(model_file), texts()
    expected = [reference.encode_prompt(prompt, LENGTH) for prompt in prompts]
    merged = sum(token >= 4 + len(reference.characters) for row in expected for token in row)
    unknown = sum(row.count(1) for row in expected)
    cut = sum(row[-1] not in (0, 3) for row in expected)
    assert merged > 1500 and unknown > 500 and cut > 100  # the comparison would see an error
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for add_special_tokens in (True, False):
        for ours in (tokenizer, loaded):
            assert padded(ours, prompts, add_special_tokens=add_special_tokens) == expected
    assert (loaded.pad_token_id, loaded.unk_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2, 3)
    assert (len(loaded), loaded.model_max_length) == (reference.vocab_size, LENGTH)


@pytest.mark.peer
def test_ids_and_texts_equal_those_of_the_package(model_file):
    package = pytest.importorskip("youtokentome", reason="needs the package youtokentome")
    theirs, tokenizer, prompts = package.BPE(str(model_file)), build(model_file), texts()
    encoded = theirs.encode([prompt.lower().strip() for prompt in prompts], output_type=package.OutputType.ID)
    expected = [([2, *tokens, 3] + [0] * LENGTH)[:LENGTH] for tokens in encoded]
    assert padded(tokenizer, prompts) == expected
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in expected] == [
        theirs.decode(ids, ignore_ids=[0, 1, 2, 3])[0] for ids in expected
    ]


def test_captions_are_read_between_bos_and_eos_and_none_is_pads_only(reference, model_file):
    tokenizer = build(model_file, bos_count=2)
    ids = tokenize(tokenizer, ["Кот", ""], allow_empty=True)
    assert ids.tolist() == [[2, *reference.encode_prompt("Кот", LENGTH)[:-1]], [0] * LENGTH]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "кот"


def test_a_character_of_the_file_is_never_taken_for_bos(tmp_path):
    reference = YouTokenToMeReference("аб\ue000\ue002", ["аб\ue000"])
    (tmp_path / "bpe.model").write_text(reference.file())
    tokenizer = build(tmp_path / "bpe.model")
    prompts = ["а\ue000б", "\ue002", "\ue001\ue003 а\ue003"]
    assert padded(tokenizer, prompts) == [reference.encode_prompt(prompt, LENGTH) for prompt in prompts]


def test_it_is_recognised_by_its_content(model_file, tmp_path):
    (tmp_path / "README").write_text("2 kinds of text\n")
    (tmp_path / "words.txt").write_text("12\n13 14\n")
    (tmp_path / "some.bin").write_bytes(model_file.read_bytes())
    files = [ForeignFile(path) for path in sorted(tmp_path.iterdir())]
    assert find_bpe_model(files).name == "some.bin" and find_bpe_model(files[:1]) is None
    with pytest.raises(KeyMismatchError, match="are both tokenizers: give one"):
        find_bpe_model([*files, ForeignFile(model_file)])


SMALL = ["3 2", "9601 4", "1072 5", "1073 6", "5 6 7", "4 7 8", "1 0 2 3"]  # ▁ а б аб ▁аб


def test_a_file_of_any_size_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "bpe.model").write_text("\n".join(SMALL))
    monkeypatch.setattr(youtokentome, "MAX_BYTES", 10)
    with pytest.raises(ForeignFileError, match="bytes: no tokenizer is larger than 10"):
        build(tmp_path / "bpe.model")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (SMALL[:-1], "is cut short: 3 characters and 2 rules are 18 numbers, got 14"),
        (SMALL[:1], "is cut short: .* got 2"),
        ([*SMALL[:-1], "1 0 2"], "is cut short: .* got 17"),
        ([*SMALL, "7"], "goes on after its end: .* got 19"),
        (["3 999999999", *SMALL[1:]], "is cut short: 3 characters and 999999999 rules"),
        ([*SMALL[:2], "1072 five", *SMALL[3:]], "numbers only: .*five"),
        ([*SMALL[:2], "1072 ٥", *SMALL[3:]], "numbers only"),
        ([*SMALL[:-1], "0 1 2 3"], "special tokens unk=0, pad=1, bos=2, eos=3; ruDALL-E writes unk=1"),
        ([*SMALL[:-1], "1 0 -1 -1"], "bos=-1, eos=-1"),
        ([SMALL[0], "1074 4", *SMALL[2:]], r"lacks the character 9601 \(▁\)"),
        ([*SMALL[:2], "55296 5", *SMALL[3:]], "has the character 55296, which Unicode does not"),
        ([*SMALL[:2], "1114112 5", *SMALL[3:]], "has the character 1114112"),
        ([*SMALL[:2], "-1 5", *SMALL[3:]], "has the character -1"),
        ([*SMALL[:2], "1072 4", *SMALL[3:]], "character 1072 makes the token 4, which is taken"),
        ([*SMALL[:2], "1072 3", *SMALL[3:]], "character 1072 makes the token 3, which is taken"),
        ([*SMALL[:2], "1072 -5", *SMALL[3:]], "makes the token -5, which is taken or negative"),
        ([*SMALL[:3], "1072 6", *SMALL[4:]], "character 1072 makes the token 6, spelled as 5 is: 'а'"),
        ([*SMALL[:4], "5 8 7", *SMALL[5:]], "rule 0 merges the tokens 5 and 8, of which one is made by no"),
        ([*SMALL[:4], "2 6 7", *SMALL[5:]], "rule 0 merges the tokens 2 and 6"),
        ([*SMALL[:4], "5 6 7", "5 6 8", SMALL[-1]], "rule 1 makes the token 8, spelled as 7 is: 'аб'"),
        (
            ["2 40", *SMALL[1:3], *(f"{5 + n} {5 + n} {6 + n}" for n in range(40)), SMALL[-1]],
            "makes a token of 512 characters; at most 256 are read",
        ),
    ],
)
def test_a_damaged_file_is_named(lines, message, tmp_path):
    path = tmp_path / "bpe.model"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ForeignFileError, match=message) as caught:
        read_bpe_model(find_bpe_model([ForeignFile(path)]))
    assert str(path) in str(caught.value)
