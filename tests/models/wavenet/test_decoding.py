import pytest
import torch

from mosaics.layers.inference import row_wise_products
from mosaics.models.wavenet import decoder as decoder_module
from mosaics.models.wavenet.decoder import Decoder
from mosaics.sampling import candidate_uniforms, draw
from testing_utils import tiny_wavenet

CLASSES = {"num_classes": 3}
SLOWER = {"condition_num_embeddings": 7, "condition_factor": 3}
OPTIONS = [{}, CLASSES, SLOWER, CLASSES | SLOWER]


def option_name(fields: dict) -> str:
    return "+".join(key for key in fields if key.startswith(("num_", "condition_f"))) or "plain"


def given_for(model, count: int, length: int = 30) -> dict:
    """Class labels and slower sequences of `count` samples, as far as the model takes them."""
    generator, given = torch.Generator().manual_seed(0), {}
    if model.config.num_classes is not None:
        given["class_labels"] = torch.randint(model.config.num_classes, (count,), generator=generator)
    if model.config.condition_factor is not None:
        given["conditions"] = torch.randint(7, (count, length // model.config.condition_factor), generator=generator)
    return given


def codes(count: int, length: int = 30) -> torch.Tensor:
    return torch.randint(16, (count, length), generator=torch.Generator().manual_seed(1))


def rows_of(given: dict, rows: slice) -> dict:
    """Some of the samples."""
    return {name: value[rows] for name, value in given.items()}


@torch.no_grad()
def naive_generate(model, given, uniforms, prefix=None, **arguments):
    """The whole network again for every code; the logits of its position; one draw."""
    indices = torch.zeros(uniforms.shape, dtype=torch.long)
    first = 0 if prefix is None else prefix.shape[1]
    if prefix is not None:
        indices[:, :first] = prefix
    for position in range(first, indices.shape[1]):
        logits = model(indices, **given).logits[:, :, position]
        indices[:, position] = draw(logits, uniforms[:, position], **arguments)
    return indices


@torch.no_grad()
@row_wise_products(torch.device("cpu"))
def cached_logits(model, indices, class_labels=None, conditions=None, given: int = 0) -> torch.Tensor:
    """Logits (B, K, T - given) of the codes from `given` on, one step each; `indices` are what is fed."""
    decoder = Decoder(model)
    decoder.start(len(indices), class_labels, () if conditions is None else (conditions,))
    if given:
        decoder.read(indices[:, :given])
    logits = []
    for position in range(given, indices.shape[1]):
        logits.append(decoder.logits())
        decoder.write(indices[:, position])
    return torch.stack(logits, dim=2)


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize("given", [0, 1, 5, 20])
@pytest.mark.parametrize("kernel", [2, 3])
def test_cached_logits_equal_uncached_ones(fields, given, kernel):
    model = tiny_wavenet(kernel_size=kernel, **fields)
    extra, indices = given_for(model, 5), codes(5)
    with torch.no_grad():
        expected = model(indices, **extra).logits[:, :, given:]
    assert 0.3 < float(expected.std()) < 20  # the comparison would see an error
    torch.testing.assert_close(cached_logits(model, indices, given=given, **extra), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_given_codes_may_be_read_in_pieces(at_once, monkeypatch):
    monkeypatch.setattr(decoder_module, "READ_AT_ONCE", at_once)
    model = tiny_wavenet(**SLOWER)
    extra, indices = given_for(model, 4), codes(4)
    with torch.no_grad():
        expected = model(indices, **extra).logits[:, :, 23:]
    torch.testing.assert_close(cached_logits(model, indices, given=23, **extra), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize(
    "arguments", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}, {"temperature": 0}], ids=str
)
@pytest.mark.parametrize("first", [0, 11])
def test_generate_equals_naive_sampling_with_the_same_uniforms(fields, arguments, first):
    model = tiny_wavenet(**fields)
    given, uniforms = given_for(model, 5), candidate_uniforms(3, [0] * 5, range(5), 30)
    prefix = codes(5)[:, :first] if first else None
    expected = naive_generate(model, given, uniforms, prefix, **arguments)
    drawn = model.generate(length=30, uniforms=uniforms, prefix_indices=prefix, **given, **arguments)
    assert torch.equal(drawn, expected)
    assert torch.equal(model.generate(5, 30, seed=3, prefix_indices=prefix, **given, **arguments), expected)


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize("first", [0, 11])
def test_a_sample_is_the_same_in_any_batch(fields, first):
    model = tiny_wavenet(**fields)
    given, prefix = given_for(model, 13), codes(13)[:, :first]
    together = model.generate(13, 30, seed=9, prefix_indices=prefix, **given)
    for batch_size in (1, 4, 5):
        drawn = model.generate(13, 30, seed=9, prefix_indices=prefix, batch_size=batch_size, **given)
        assert torch.equal(drawn, together)
    for sample in (0, 12):
        row = slice(sample, sample + 1)
        uniforms = candidate_uniforms(9, [0], [sample], 30)
        alone = model.generate(length=30, uniforms=uniforms, prefix_indices=prefix[row], **rows_of(given, row))
        assert torch.equal(alone, together[row])


@pytest.mark.parametrize("size", [{}, {"hidden_size": 40, "skip_size": 24}], ids=str)
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_logits_of_a_sample_are_bit_equal_in_any_batch_on_the_cpu(size, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        model = tiny_wavenet(**CLASSES, **SLOWER, **size)
        extra, indices = given_for(model, 33), codes(33)
        for given in (0, 11):
            together = cached_logits(model, indices, given=given, **extra)
            for count in (4, 5, 7, 16):
                some = cached_logits(model, indices[:count], given=given, **rows_of(extra, slice(count)))
                assert torch.equal(some, together[:count])
    finally:
        torch.set_float32_matmul_precision(before)


def test_continuation_keeps_the_given_codes_and_one_prefix_serves_all():
    model, prefix = tiny_wavenet(), codes(3)[:, :9]
    drawn = model.generate(length=20, prefix_indices=prefix, seed=0)
    assert drawn.shape == (3, 20) and torch.equal(drawn[:, :9], prefix)
    of_all = model.generate(3, 20, prefix_indices=prefix[0], seed=0)
    assert torch.equal(of_all[:, :9], prefix[:1].expand(3, -1)) and torch.equal(of_all[0], drawn[0])
    assert torch.equal(model.generate(3, 20, prefix_indices=prefix[:, :0], seed=0), model.generate(3, 20, seed=0))


def test_one_class_and_one_slower_sequence_serve_all_samples():
    model = tiny_wavenet(**CLASSES, **SLOWER)
    slower = given_for(model, 1)["conditions"]
    shared = model.generate(3, class_labels=2, conditions=slower, seed=0)
    each = model.generate(class_labels=torch.tensor([2, 2, 2]), conditions=slower.expand(3, -1), seed=0)
    assert shared.shape == (3, 30) and torch.equal(shared, each) and not torch.equal(shared[0], shared[1])


def test_a_step_keeps_no_more_than_the_rings():
    model = tiny_wavenet(kernel_size=3)
    decoder = Decoder(model)
    decoder.start(5, None, ())
    assert [len(layer.ring) for layer in decoder.layers] == [2, 4, 8, 2, 4, 8]


def test_codes_follow_the_distribution_of_the_model():
    model = tiny_wavenet(num_embeddings=8)
    drawn = model.generate(4000, 2, seed=0)
    with torch.no_grad():
        logits = model(torch.stack([torch.arange(8), torch.zeros(8, dtype=torch.long)], dim=1)).logits.double()
    probabilities = (logits[0, :, 0].softmax(0)[:, None] * logits[:, :, 1].softmax(1)).flatten()
    counts = torch.bincount(drawn[:, 0] * 8 + drawn[:, 1], minlength=64).double()
    frequent = probabilities * 4000 > 5
    expected = probabilities[frequent] * 4000
    chi_square, freedom = float(((counts[frequent] - expected) ** 2 / expected).sum()), len(expected)
    assert freedom > 20 and chi_square < freedom + 3.1 * (2 * freedom) ** 0.5  # p = 0.001


def test_the_callback_sees_every_code():
    model, steps = tiny_wavenet(), []
    expected = model.generate(5, 12, seed=0)

    def record(step):
        steps.append((step.first_sample, step.position, len(step.indices)))
        drawn = expected[step.first_sample : step.first_sample + len(step.indices), : step.position + 1]
        assert torch.equal(step.indices[:, : step.position + 1], drawn) and step.num_positions == 12

    model.generate(5, 12, seed=0, batch_size=3, callback=record)
    assert steps == [(first, position, count) for first, count in [(0, 3), (3, 2)] for position in range(12)]


def test_training_mode_gradients_and_autocast_do_not_matter():
    model = tiny_wavenet(dropout=0.5, **SLOWER)
    given = given_for(model, 2)
    expected = model.generate(seed=0, **given)
    assert torch.equal(model.train().generate(seed=0, **given), expected)
    assert all(module.training for module in model.modules())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.generate(seed=0, **given), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_weights_draw_from_nearly_the_same_distribution():
    model, indices = tiny_wavenet(), codes(4)
    exact = cached_logits(model, indices)
    half = cached_logits(model.to(torch.bfloat16), indices)
    assert half.dtype == torch.float32
    assert float((half - exact).abs().mean()) < 0.1 * float(exact.std())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        ({"length": 0}, "length must be an integer of at least 1, got 0"),
        ({"length": 31}, "conditions has 10 codes, which belong to 30 codes .* not to 31"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"temperature": -1.0}, "temperature must be a finite number of at least 0"),
        ({"top_k": 17}, "top_k must be an integer from 1 to the vocabulary size 16"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"seed": 0, "uniforms": torch.zeros(2, 30)}, "uniforms or seed, not both"),
        ({"uniforms": torch.zeros(2, 7)}, r"uniforms must be floats of shape .* = \(2, 30\), got"),
        ({"uniforms": torch.ones(2, 30)}, r"uniforms must be in \[0, 1\)"),
        ({"prefix_indices": torch.zeros(2, 3, 4, dtype=torch.long)}, r"prefix_indices must be of shape \(n\)"),
        ({"prefix_indices": torch.zeros(30, dtype=torch.long)}, "at least one of 30 codes to draw, got 30"),
        ({"prefix_indices": torch.zeros(5, 1, dtype=torch.long)}, "must have one row for all samples"),
        ({"prefix_indices": torch.full((1,), 16)}, "prefix_indices must be from 0 to num_embeddings - 1 = 15"),
        ({"class_labels": None}, "class_labels are missing"),
        ({"class_labels": 3}, "class_labels must be from 0 to num_classes - 1 = 2"),
        ({"conditions": None}, "conditions are missing"),
    ],
)
def test_bad_input_is_named(arguments, message):
    model = tiny_wavenet(**CLASSES, **SLOWER)
    with pytest.raises(ValueError, match=message):
        model.generate(**(given_for(model, 2) | arguments))


def test_a_model_without_slower_sequence_needs_a_length():
    with pytest.raises(ValueError, match="length is missing"):
        tiny_wavenet().generate(2)
