import math

import pytest
import torch

from mosaics.layers.inference import row_wise_products
from mosaics.models.dalle.attention_patterns import ATTENTION_PATTERNS
from mosaics.models.dalle.caches import CACHES, bytes_per_candidate
from mosaics.models.dalle.decoder import Decoder
from mosaics.sampling import candidate_uniforms, draw
from testing_utils import tiny_dalle

LAYERS = len(ATTENTION_PATTERNS)
PATTERN_SETS = [*([name] * LAYERS for name in ATTENTION_PATTERNS), list(ATTENTION_PATTERNS)]
GRID, COUNT = 6, 36


def dalle(patterns=PATTERN_SETS[-1], **fields):
    """A layer of each pattern over a 6x6 grid, with logits that differ by a few units."""
    defaults = {"attention_patterns": patterns, "image_grid_size": GRID, "conv_kernel_size": 5}
    defaults["num_hidden_layers"] = LAYERS
    return tiny_dalle(**(defaults | fields))


def texts(count: int = 2) -> torch.Tensor:
    text = torch.randint(1, 300, (count, 12), generator=torch.Generator().manual_seed(0))
    text[0, 5:] = 0
    return text


def codes(*shape: int) -> torch.Tensor:
    return torch.randint(32, (*shape, GRID, GRID), generator=torch.Generator().manual_seed(1))


def naive_generate(model, text, uniforms, prefix=None, guidance_scale=1.0, **arguments):
    """The whole sequence again for every token of every candidate; the last logits; one draw."""
    tokens = torch.zeros(len(uniforms), COUNT, dtype=torch.long)
    first = 0
    if prefix is not None:
        first = prefix.shape[1] * GRID
        tokens[:, :first] = prefix.flatten(1)
    rows = text.repeat_interleave(len(uniforms) // len(text), dim=0)
    for q in range(first, COUNT):
        with torch.no_grad():
            logits = model(rows, tokens.view(-1, GRID, GRID)).image_logits[:, q]
            if guidance_scale != 1:
                empty = model(torch.zeros_like(rows), tokens.view(-1, GRID, GRID)).image_logits[:, q]
                logits = empty + guidance_scale * (logits - empty)
        tokens[:, q] = draw(logits, uniforms[:, q], **arguments)
    return tokens.view(-1, GRID, GRID)


@torch.no_grad()
@row_wise_products(torch.device("cpu"))
def cached_logits(model, text, indices, given: int = 0) -> torch.Tensor:
    """Logits of the positions from `given` on, one step each; `indices` (P, C, W, W) are what is fed."""
    candidates = indices.shape[1]
    tokens = indices.flatten(2)
    decoder = Decoder(model)
    hidden = decoder.read_text(text)[:, None]
    decoder.allocate(candidates)
    if given:
        hidden = decoder.read_rows(tokens[:, :, :given])
    hidden = hidden.expand(-1, candidates, -1).flatten(end_dim=1)
    logits = []
    for position in range(given, COUNT):
        logits.append(decoder.logits(hidden))
        if position + 1 < COUNT:
            hidden = decoder.step(tokens[:, :, position].flatten(), position)
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("patterns", PATTERN_SETS, ids=lambda patterns: "-".join(dict.fromkeys(patterns)))
@pytest.mark.parametrize("given", [0, GRID, 3 * GRID])
@pytest.mark.parametrize("shifted", [False, True])
def test_cached_logits_equal_uncached_ones(patterns, given, shifted):
    model = dalle(patterns, shifted_patterns=shifted)
    text, indices = texts(), codes(2, 5)
    with torch.no_grad():
        expected = model(text.repeat_interleave(5, dim=0), indices.flatten(end_dim=1)).image_logits[:, given:]
    assert 0.5 < float(expected.std()) < 20  # the comparison would see an error
    torch.testing.assert_close(cached_logits(model, text, indices, given), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", [0, GRID])
def test_cached_logits_equal_uncached_ones_with_every_optional_part(given):
    parts = {"image_positions": "learned", "sandwich_norm": True, "head_norm": True, "head_bias": True}
    model = dalle(**parts, qk_norm=False)
    text, indices = texts(), codes(2, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        expected = model(text.repeat_interleave(3, dim=0), indices.flatten(end_dim=1)).image_logits[:, given:]
    torch.testing.assert_close(cached_logits(model, text, indices, given), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize(("grid", "kernel"), [(2, 3), (4, 11), (6, 1)])
def test_cached_logits_equal_uncached_ones_on_other_grids(grid, kernel, qk_norm):
    model = tiny_dalle(
        num_hidden_layers=LAYERS,
        attention_patterns=list(ATTENTION_PATTERNS),
        image_grid_size=grid,
        conv_kernel_size=kernel,
        qk_norm=qk_norm,
        initializer_range=0.2,
    )
    fed = []
    text = texts(3)
    drawn = model.generate(text, 2, seed=0, temperature=0, callback=lambda step: fed.append(step.position))
    with torch.no_grad():
        logits = model(text.repeat_interleave(2, dim=0), drawn).image_logits
    assert torch.equal(logits.argmax(-1), drawn.flatten(1)) and fed == list(range(grid * grid))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"temperature": 0.7, "top_k": 9},
        {"top_p": 0.8},
        {"guidance_scale": 3.0},
        {"guidance_scale": 0.0, "temperature": 1.2, "top_k": 20, "top_p": 0.9},
        {"temperature": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("shifted", [False, True])
def test_generate_equals_naive_sampling_with_the_same_uniforms(arguments, rows, shifted):
    model, text = dalle(shifted_patterns=shifted), texts()
    uniforms = candidate_uniforms(3, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2, COUNT)
    prefix = codes(6)[:, :rows] if rows else None
    expected = naive_generate(model, text, uniforms, prefix, **arguments)
    assert torch.equal(model.generate(text, 3, uniforms=uniforms, prefix_indices=prefix, **arguments), expected)
    assert torch.equal(model.generate(text, 3, seed=3, prefix_indices=prefix, **arguments), expected)


def test_one_prefix_serves_all_candidates_or_all_of_a_prompt():
    model, text, prefix = dalle(), texts(), codes(2)[:, :3]
    arguments = {"seed": 1, "guidance_scale": 2.0}
    of_each_prompt = model.generate(text, 3, prefix_indices=prefix, **arguments)
    of_each_candidate = model.generate(text, 3, prefix_indices=prefix.repeat_interleave(3, dim=0), **arguments)
    assert torch.equal(of_each_prompt, of_each_candidate)
    assert torch.equal(of_each_prompt[:, :3], prefix.repeat_interleave(3, dim=0))
    of_all = model.generate(text, 3, prefix_indices=prefix[0], **arguments)
    assert torch.equal(of_all[:3], of_each_prompt[:3]) and not torch.equal(of_all[3:], of_each_prompt[3:])
    assert torch.equal(
        model.generate(text, 3, prefix_indices=prefix[:, :0], **arguments), model.generate(text, 3, **arguments)
    )


@pytest.mark.parametrize("arguments", [{}, {"guidance_scale": 3.0, "top_p": 0.9}, {"top_k": 10}], ids=str)
def test_a_candidate_is_the_same_in_any_batch(arguments):
    model, text = dalle(image_grid_size=4), texts(3)
    together = model.generate(text, 32, seed=9, **arguments)
    for batch_size in (5, 32, 64):
        assert torch.equal(model.generate(text, 32, seed=9, batch_size=batch_size, **arguments), together)
    some = model.generate(text[:2], 4, seed=9, **arguments)
    assert torch.equal(some.view(2, 4, -1), together.view(3, 32, -1)[:2, :4])
    assert torch.equal(model.generate(text[:2], 4, seed=9, batch_size=1, **arguments), some)
    for prompt, candidate in [(1, 17), (2, 31)]:
        uniforms = candidate_uniforms(9, [prompt], [candidate], 16)
        alone = model.generate(text[prompt : prompt + 1], uniforms=uniforms, **arguments)
        assert torch.equal(alone[0], together[32 * prompt + candidate])


@pytest.mark.parametrize(
    "size", [{}, {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 200}], ids=str
)
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_logits_of_a_candidate_are_bit_equal_in_any_batch_on_the_cpu(size, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        check_that_logits_are_equal_in_any_batch(size)
    finally:
        torch.set_float32_matmul_precision(before)


def check_that_logits_are_equal_in_any_batch(size):
    model, text, indices = dalle(**size), texts(3), codes(3, 32)
    together = cached_logits(model, text, indices).unflatten(0, (3, 32))
    for candidates in (4, 5, 7, 16, 31):
        assert torch.equal(
            cached_logits(model, text, indices[:, :candidates]).flatten(), together[:, :candidates].flatten()
        )
    assert torch.equal(cached_logits(model, text[1:2], indices[1:2]), together[1])
    # Fewer rows than MIN_ROWS in a text, several texts: the text part is padded.
    several = cached_logits(model, text.repeat(2, 1), indices[:, :1].repeat(2, 1, 1, 1)).unflatten(0, (6, 1))
    assert torch.equal(several[:3], together[:, :1])


def test_more_threads_change_no_candidate_between_batches():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model, text = dalle(hidden_size=128, num_attention_heads=4, image_vocab_size=512), texts(2)
        together = cached_logits(model, text, codes(2, 16), given=COUNT - 3).unflatten(0, (2, 16))
        alone = cached_logits(model, text[:1], codes(2, 16)[:1, :4], given=COUNT - 3)
        assert torch.equal(alone, together[0, :4])
    finally:
        torch.set_num_threads(threads)


def test_candidates_differ_and_seeds_differ():
    model, text = dalle(), texts(1)
    pictures = model.generate(text, 8, seed=0)
    assert pictures.shape == (8, GRID, GRID) and pictures.dtype == torch.int64
    assert len({tuple(picture.flatten().tolist()) for picture in pictures}) == 8
    assert not torch.equal(pictures, model.generate(text, 8, seed=1))
    torch.manual_seed(0)
    first = model.generate(text, 2)
    assert not torch.equal(first, model.generate(text, 2))
    torch.manual_seed(0)
    assert torch.equal(first, model.generate(text, 2))


def test_tokens_follow_the_distribution_of_the_model():
    model, text = dalle(image_grid_size=2), texts(1)
    pictures = model.generate(text, 20_000, seed=0)
    with torch.no_grad():
        probabilities = model(text, pictures[:1]).image_logits[0, 0].double().softmax(-1)
    counts = torch.bincount(pictures[:, 0, 0], minlength=32).double()
    frequent = probabilities * 20_000 > 5
    expected = probabilities[frequent] * 20_000
    chi_square = float(((counts[frequent] - expected) ** 2 / expected).sum())
    assert chi_square < 61.1  # at most 31 degrees of freedom, p = 0.001


def test_caches_have_the_size_of_their_pattern():
    config = dalle().config
    sizes = {name: CACHES[name].num_slots(config) for name in ATTENTION_PATTERNS}
    rings = {"row": GRID + 1, "conv": 2 * GRID + 3, "window": 2 * GRID + 3}
    assert sizes == {**rings, "column": COUNT, "full": COUNT, "torus": COUNT}
    decoder = Decoder(dalle())
    decoder.read_text(texts())
    decoder.allocate(5)
    held = sum(layer.cache.keys.nbytes + layer.cache.values.nbytes for layer in decoder.layers)
    assert held == 10 * bytes_per_candidate(config, element_size=4)


def test_the_text_is_computed_once_and_held_once_for_all_candidates(monkeypatch):
    model, sizes = dalle(), []
    read_text = Decoder.read_text

    def counted(self, input_ids):
        sizes.append(len(input_ids))
        return read_text(self, input_ids)

    monkeypatch.setattr(Decoder, "read_text", counted)
    model.generate(texts(1), 12, seed=0, batch_size=4)
    assert sizes == [1]
    sizes.clear()
    model.generate(texts(3), 4, seed=0, guidance_scale=2.0)
    assert sizes == [4]  # three prompts and the empty text


def test_the_callback_sees_every_token_and_an_interrupt_leaves_the_model_usable():
    model, text, steps = dalle(), texts(), []
    expected = model.generate(text, 3, seed=0)

    def record(step):
        steps.append((step.first_row, step.position, len(step.tokens)))
        drawn = expected.flatten(1)[step.first_row : step.first_row + len(step.tokens), : step.position + 1]
        assert torch.equal(step.tokens[:, : step.position + 1], drawn)

    model.generate(text, 3, seed=0, batch_size=2, callback=record)
    batches = [(0, 2), (2, 1), (3, 2), (5, 1)]
    assert steps == [(first, position, count) for first, count in batches for position in range(COUNT)]

    def interrupt(step):
        if step.position == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(text, 3, seed=0, callback=interrupt)
    assert torch.equal(model.generate(text, 3, seed=0), expected)


def test_training_mode_gradients_and_autocast_do_not_matter():
    model, text = dalle(hidden_dropout=0.5, attention_dropout=0.5), texts()
    expected = model.generate(text, 2, seed=0)
    assert torch.equal(model.train().generate(text, 2, seed=0), expected) and model.training
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.generate(text, 2, seed=0), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_changed_weights_are_used_at_once():
    model, text = dalle(), texts()
    before = model.generate(text, 2, seed=0)
    with torch.no_grad():
        model.layers[0].attention.qkv.weight.mul_(-1)
    after = model.generate(text, 2, seed=0)
    assert not torch.equal(before, after)
    assert torch.equal(after, naive_generate(model, text, candidate_uniforms(0, [0, 0, 1, 1], [0, 1] * 2, COUNT)))


def test_half_precision_weights_draw_from_nearly_the_same_distribution():
    model, text, indices = dalle(), texts(), codes(2, 4)
    exact = cached_logits(model, text, indices)
    half = cached_logits(model.to(torch.bfloat16), text, indices)
    assert half.dtype == torch.float32
    assert float((half - exact).abs().mean()) < 0.1 * float(exact.std())
    assert model.generate(text, 3, seed=0).shape == (6, GRID, GRID)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_candidates": 0}, "num_candidates must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"temperature": -1.0}, "temperature must be a finite number of at least 0"),
        ({"top_k": 33}, "top_k must be an integer from 1 to the vocabulary size 32"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"guidance_scale": math.nan}, "guidance_scale must be a finite number"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 0, "uniforms": torch.zeros(2, COUNT)}, "uniforms or seed, not both"),
        ({"uniforms": torch.zeros(2, 7)}, r"uniforms must be floats of shape .* = \(2, 36\), got"),
        ({"uniforms": torch.ones(2, COUNT)}, r"uniforms must be in \[0, 1\)"),
        ({"prefix_indices": torch.zeros(2, 7, dtype=torch.long)}, r"prefix_indices must be of shape \(rows, 6\)"),
        (
            {"prefix_indices": torch.zeros(6, 6, dtype=torch.long)},
            "must leave at least one of the 6 rows to draw, got 6",
        ),
        ({"prefix_indices": torch.zeros(5, 1, 6, dtype=torch.long)}, r"\(2, rows, 6\), one for each prompt"),
        ({"prefix_indices": torch.full((1, 6), 32)}, "prefix_indices must be from 0 to image_vocab_size - 1 = 31"),
        ({"input_ids": torch.zeros(2, 5, dtype=torch.long)}, "input_ids must be of shape"),
        ({"input_ids": torch.full((2, 12), 300)}, "input_ids must be from 0 to text_vocab_size - 1 = 299"),
        ({"input_ids": torch.zeros(0, 12, dtype=torch.long)}, "at least one text"),
    ],
)
def test_bad_input_is_named(arguments, message):
    arguments = {"input_ids": texts()} | arguments
    with pytest.raises(ValueError, match=message):
        dalle().generate(**arguments)
