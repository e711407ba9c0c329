import math

import pytest
import torch

from mosaics.sampling import candidate_uniforms, check_sampling, draw, guide


def test_uniforms_of_a_candidate_do_not_depend_on_the_others():
    table = candidate_uniforms(7, [0, 0, 1, 1], [0, 1, 0, 1], 16)
    assert table.shape == (4, 16) and table.dtype == torch.float32
    assert torch.equal(candidate_uniforms(7, [1, 0], [0, 1], 16), table[[2, 1]])
    assert torch.equal(candidate_uniforms(7, [1], [1], 5)[0], table[3, :5])
    assert len({tuple(row.tolist()) for row in table}) == 4
    assert not torch.equal(candidate_uniforms(8, [0], [0], 16)[0], table[0])


def test_uniforms_are_the_same_for_ever():
    expected = torch.tensor([0.3124567, 0.8102435, 0.8688067])
    torch.testing.assert_close(candidate_uniforms(0, [0], [0], 3)[0], expected, rtol=0, atol=1e-6)


def test_uniforms_are_uniform_and_below_one():
    table = candidate_uniforms(3, range(200), [0] * 200, 1000)
    assert 0 <= float(table.min()) and float(table.max()) < 1
    counts = torch.histc(table, bins=50, min=0, max=1)
    assert float(((counts - 4000) ** 2 / 4000).sum()) < 85.4  # chi-square, 49 degrees of freedom, p = 0.001


def test_seeds_above_32_bits_differ_from_their_remainders():
    assert not torch.equal(candidate_uniforms(5 + 2**32, [0], [0], 4), candidate_uniforms(5, [0], [0], 4))
    assert not torch.equal(candidate_uniforms(0, [1], [0], 4), candidate_uniforms(0, [0], [1], 4))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, None])
def test_a_bad_seed_is_named(seed):
    with pytest.raises(ValueError, match="seed must be an integer from 0 to 2\\*\\*64 - 1"):
        candidate_uniforms(seed, [0], [0], 4)


def filtered_probabilities(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None):
    """The distribution of one row of logits by its definition: sort, cut, normalise."""
    probabilities = (logits.double() / temperature).softmax(-1)
    order = probabilities.argsort(descending=True).tolist()
    if top_k is not None:
        order = order[:top_k]
    if top_p is not None:
        mass = sum(float(probabilities[token]) for token in order)
        kept, total = [], 0.0
        for token in order:
            kept.append(token)
            total += float(probabilities[token]) / mass
            if total >= top_p:
                break
        order = kept
    result = torch.zeros_like(probabilities)
    result[order] = probabilities[order]
    return result / result.sum()


@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [None, 1, 7, 40])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draw_inverts_the_exact_cdf(temperature, top_k, top_p):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 41, generator=generator)
    uniform = (torch.arange(4000) + 0.5) / 4000
    for row in logits:
        expected = filtered_probabilities(row, temperature, top_k, top_p)
        tokens = draw(row.expand(4000, -1), uniform, temperature, top_k, top_p)
        share = torch.bincount(tokens, minlength=41).double() / 4000
        # Evenly spread uniforms hit every token in proportion, to one hit at either end of its interval.
        assert float((share - expected).abs().max()) <= 1.01 / 4000
        assert bool((share[expected == 0] == 0).all())


def test_draw_is_the_first_token_whose_cumulative_probability_exceeds_the_uniform():
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    for uniform, token in [(0.0, 0), (0.49, 0), (0.51, 1), (0.74, 1), (0.76, 2), (1 - 2**-24, 2)]:
        assert draw(logits, torch.tensor([uniform])).tolist() == [token]


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0, -math.inf, -math.inf]]).expand(3, -1)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-24])
    assert set(draw(logits, uniform).tolist()) <= {1, 3}
    # A uniform just below 1 in float64 is 1 in float32.
    logits = torch.zeros(1, 8192)
    logits[:, 5000:] = -math.inf
    assert int(draw(logits, torch.tensor([1 - 1e-12], dtype=torch.float64))) == 4999


def test_temperature_zero_takes_the_most_likely_token_and_the_first_of_equals():
    logits = torch.tensor([[0.0, 3.0, 3.0], [5.0, 1.0, 2.0]])
    assert draw(logits, torch.tensor([0.9, 0.9]), temperature=0).tolist() == [1, 0]
    assert draw(logits[1:], torch.tensor([0.999]), temperature=1e-30).tolist() == [0]


def test_draw_passes_a_chi_square_test():
    logits = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)).expand(40_000, -1)
    uniform = candidate_uniforms(0, [0], [0], 40_000)[0]
    counts = torch.bincount(draw(logits, uniform), minlength=64).double()
    expected = logits[0].double().softmax(-1) * 40_000
    assert float(((counts - expected) ** 2 / expected).sum()) < 103.4  # 63 degrees of freedom, p = 0.001


def test_rows_are_drawn_independently_and_in_half_precision():
    logits = torch.randn(5, 33, generator=torch.Generator().manual_seed(2)).bfloat16()
    uniform = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    together = draw(logits, uniform, 0.8, 20, 0.9)
    assert together.tolist() == [int(draw(logits[i : i + 1], uniform[i : i + 1], 0.8, 20, 0.9)) for i in range(5)]
    assert torch.equal(together, draw(logits.float(), uniform, 0.8, 20, 0.9))


def test_the_logits_are_left_alone():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))
    before = logits.clone()
    draw(logits, torch.rand(4, generator=torch.Generator().manual_seed(4)), 0.7, 5, 0.5)
    assert torch.equal(logits, before)


def test_guidance_extrapolates_from_the_unconditional_logits():
    conditional, unconditional = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 3.0]])
    torch.testing.assert_close(guide(conditional, unconditional, 3.0), torch.tensor([[2.0, 0.0]]))
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a finite number of at least 0"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"temperature": math.inf}, "temperature must be a finite number"),
        ({"temperature": "1"}, "temperature must be a finite number"),
        ({"top_k": 0}, "top_k must be an integer from 1 to the vocabulary size 10"),
        ({"top_k": 11}, "top_k must be .* got 11"),
        ({"top_k": 2.0}, "top_k must be an integer"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"top_p": math.nan}, "top_p must be above 0 and at most 1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(**({"temperature": 1.0, "top_k": None, "top_p": None, "vocab_size": 10} | arguments))
    with pytest.raises(ValueError, match=message):
        draw(torch.zeros(1, 10), torch.zeros(1), **arguments)
