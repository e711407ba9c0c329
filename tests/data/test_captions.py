import time
import warnings
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mosaics.data.captions import CaptionError, read_caption, tokenize, train_tokenizer

CAPTIONS = [
    f"{number} {animal}s on a {colour} background"
    for number in ("two", "three", "four")
    for animal in ("lion", "beetle", "penguin", "elephant")
    for colour in ("red", "green", "yellow")
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS, vocab_size=400, max_length=32)


def decode(tokenizer, ids):
    return tokenizer.decode(ids[ids != tokenizer.pad_token_id])


def test_training_merges_the_words_of_the_captions_and_keeps_pad_at_zero(tokenizer):
    assert tokenizer.pad_token_id == 0 and 257 < len(tokenizer) <= 400
    ids = tokenize(tokenizer, "Three  PENGUINS on a red background")
    assert ids.shape == (1, 32) and ids.dtype == torch.long
    assert (ids != 0).sum() <= 8 and (ids[0, (ids != 0).sum() :] == 0).all()
    assert decode(tokenizer, ids[0]) == "three penguins on a red background"


def test_training_is_deterministic(tokenizer):
    again = train_tokenizer(iter(CAPTIONS), vocab_size=400, max_length=32)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("text", ["a 🦁 on blue 👩‍🚀", "שלום עולם", "e\u0301te\u0301", "ﬁne ½", "日本語", "a\tb\nc"])
def test_any_unicode_text_survives_the_round_trip(tokenizer, text):
    import unicodedata

    expected = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    assert decode(tokenizer, tokenize(tokenizer, text, max_length=64)[0]) == expected


def test_special_tokens_cannot_be_typed_even_after_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for loaded in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        ids = tokenize(loaded, "a <pad> lion <eos>")
        used = (ids != 0).sum()
        assert (ids[0, :used] != 0).all() and decode(loaded, ids[0]) == "a <pad> lion <eos>"


def test_a_saved_tokenizer_gives_the_same_ids_and_no_dropout(tokenizer, tmp_path):
    tokenize(tokenizer, CAPTIONS, bpe_dropout=0.5)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 32 and loaded.backend_tokenizer.model.dropout is None
    assert torch.equal(tokenize(loaded, CAPTIONS), tokenize(tokenizer, CAPTIONS))


def test_dropout_changes_the_ids_but_never_the_text(tokenizer):
    usual = tokenize(tokenizer, CAPTIONS, max_length=64)
    dropped = tokenize(tokenizer, CAPTIONS, max_length=64, bpe_dropout=0.3, generator=torch.Generator().manual_seed(1))
    assert (usual != dropped).any(dim=1).float().mean() > 0.8
    assert [decode(tokenizer, row) for row in dropped] == CAPTIONS
    again = tokenize(tokenizer, CAPTIONS, max_length=64, bpe_dropout=0.3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(dropped, again)
    assert torch.equal(tokenize(tokenizer, CAPTIONS, max_length=64), usual)


def test_dropout_of_almost_nothing_is_the_usual_encoding(tokenizer):
    texts = [*CAPTIONS, "a 🦁 on blue", "unseen words, here"]
    assert torch.equal(tokenize(tokenizer, texts, bpe_dropout=1e-12), tokenize(tokenizer, texts))


@pytest.mark.parametrize("unknown", [{}, {"unk_token": "?"}, {"unk_token": "?", "fuse_unk": True}], ids=str)
def test_dropout_encodes_characters_that_no_token_has_as_the_library_does(unknown):
    vocabulary = {"<pad>": 0, "?": 1, "a": 2, "b": 3, "ab": 4}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")], **unknown))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", model_max_length=12)
    texts = ["abxyab", "axx yx", "axb ba", "xyzb", "ab ab"]
    assert torch.equal(tokenize(tokenizer, texts, bpe_dropout=1e-12), tokenize(tokenizer, texts))


def test_dropout_has_the_distribution_of_the_tokenizers_library(tokenizer):
    theirs = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    theirs.model.dropout = 0.2
    reference = Counter(len(theirs.encode("penguins").ids) for _ in range(4000))
    ours = tokenize(tokenizer, ["penguins"] * 4000, bpe_dropout=0.2, generator=torch.Generator().manual_seed(0))
    ours = Counter((ours != 0).sum(dim=1).tolist())
    for length in reference | ours:
        assert abs(reference[length] - ours[length]) < 250  # more than 5 standard deviations of a binomial count


def test_a_caption_that_only_fits_without_dropout_is_encoded_without(tokenizer):
    length = int((tokenize(tokenizer, "three penguins") != 0).sum())
    ids = tokenize(tokenizer, ["three penguins"] * 50, max_length=length, bpe_dropout=0.5)
    assert torch.equal(ids, tokenize(tokenizer, ["three penguins"] * 50, max_length=length))


def test_a_tokenizer_with_dropout_inside_is_refused(tokenizer):
    active = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), pad_token="<pad>"
    )
    active.backend_tokenizer.model.dropout = 0.1
    with pytest.raises(ValueError, match="BPE dropout is active"):
        tokenize(active, "a lion", max_length=8)


def test_too_long_is_refused_with_counts_or_cut_with_a_warning(tokenizer):
    long = "zebra " * 30
    with pytest.raises(CaptionError, match=r"captions\[1\] has \d+ tokens, the limit is 16"):
        tokenize(tokenizer, ["a lion", long], max_length=16)
    with pytest.warns(UserWarning, match=r"1 of 2 captions were cut; captions\[1\] has \d+ tokens"):
        ids = tokenize(tokenizer, ["a lion", long], max_length=16, truncation=True)
    whole = tokenize(tokenizer, long, max_length=400)
    assert torch.equal(ids[1], whole[0, :16])


@pytest.mark.parametrize("empty", ["", "  \n\t", "\0"])
def test_an_empty_caption_is_refused_unless_asked_for(tokenizer, empty):
    with pytest.raises(CaptionError, match="caption is empty"):
        tokenize(tokenizer, empty)
    if empty != "\0":
        assert (tokenize(tokenizer, ["a lion", empty], allow_empty=True)[1] == 0).all()


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (None, "captions must be a string or a list of strings, got NoneType"),
        (3, "got int"),
        (b"lion", "got bytes"),
        ([["a lion"]], r"captions\[0\] must be a string, got list"),
        (["a lion", None], r"captions\[1\] must be a string, got NoneType"),
        (["a \ud800 lion"], r"captions\[0\] holds half of a character .* position 2"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tokenizer, captions, message):
    with pytest.raises(CaptionError, match=message):
        tokenize(tokenizer, captions)


def test_five_megabytes_are_refused_at_once(tokenizer):
    start = time.perf_counter()
    with pytest.raises(CaptionError, match=r"5,000,000 characters; at most 10,000"):
        tokenize(tokenizer, "x" * 5_000_000)
    assert time.perf_counter() - start < 0.1
    start = time.perf_counter()
    with pytest.raises(CaptionError, match="tokens, the limit is 32"):
        tokenize(tokenizer, "x" * 10_000)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 0}, "max_length must be a positive integer"),
        ({"bpe_dropout": 1.0}, "bpe_dropout must be at least 0 and below 1"),
    ],
)
def test_a_bad_number_is_named(tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        tokenize(tokenizer, "a lion", **arguments)


def test_training_refuses_bad_sizes_and_bad_captions():
    with pytest.raises(ValueError, match="vocab_size must be an integer of at least 257"):
        train_tokenizer(CAPTIONS, vocab_size=100, max_length=8)
    with pytest.raises(ValueError, match="max_length must be"):
        train_tokenizer(CAPTIONS, vocab_size=300, max_length=0)
    with pytest.raises(CaptionError, match=r"captions\[1\] must be a string"):
        train_tokenizer(["a lion", 3], vocab_size=300, max_length=8)


@pytest.mark.parametrize(
    ("row", "caption"),
    [
        ({"image": 0, "text": " a  lion "}, "a lion"),
        ({"captions": ["a lion", "the lion"]}, "a lion"),
        ({"txt": "löwe".encode()}, "löwe"),
        ({"json": {"caption": "a lion"}}, "a lion"),
        ({"json": b'{"caption": "a lion"}'}, "a lion"),
    ],
)
def test_a_caption_is_found_in_its_usual_places(row, caption):
    assert read_caption(row) == caption


def test_a_chosen_column_and_a_chosen_caption_are_taken():
    assert read_caption({"text": "a lion", "de": "ein Löwe"}, column="de") == "ein Löwe"
    assert read_caption({"captions": ["a", "b"]}, choice=3) == "b"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": 0}, r"No caption column among \['image'\]"),
        ({"text": None}, "column 'text' must be a string, got NoneType"),
        ({"text": 7}, "got int"),
        ({"text": []}, "got list"),
        ({"text": ""}, "is empty"),
        ({"txt": b"\xff\xfe"}, "is not UTF-8"),
        ({"json": b"{"}, "is not JSON"),
        ({"json": {"label": 3}}, "No caption column"),
    ],
)
def test_a_bad_caption_is_refused_with_its_column(row, message):
    with pytest.raises(CaptionError, match=message):
        read_caption(row)


def test_tokenizing_gives_no_other_warning(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(tokenizer, "word " * 40, max_length=500)
