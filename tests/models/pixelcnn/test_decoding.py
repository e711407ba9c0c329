import pytest
import torch

from mosaics.layers.inference import MIN_ROWS, row_wise_products
from mosaics.models.pixelcnn.decoder import Decoder
from mosaics.sampling import candidate_uniforms, draw
from testing_utils import tiny_pixelcnn

ATTENTION = {"num_attention_layers": 2}
CLASSES = {"num_classes": 3}
UPPER = {"condition_num_embeddings": [7, 9], "condition_factors": [2, 1]}
OPTIONS = [{}, ATTENTION, CLASSES, UPPER, ATTENTION | CLASSES | UPPER]


def option_name(fields: dict) -> str:
    return "+".join(key for key in fields if key.startswith(("num_", "condition_f"))) or "plain"


def given_for(model, count: int, size: tuple[int, int] = (4, 6)) -> dict:
    """Class labels and upper grids of `count` samples, as far as the model takes them."""
    generator, given = torch.Generator().manual_seed(0), {}
    if model.config.num_classes is not None:
        given["class_labels"] = torch.randint(model.config.num_classes, (count,), generator=generator)
    if model.config.upper_grids:
        given["conditions"] = tuple(
            torch.randint(codes, (count, size[0] // factor, size[1] // factor), generator=generator)
            for codes, factor in model.config.upper_grids
        )
    return given


def rows_of(given: dict, rows: slice) -> dict:
    """Some of the samples."""
    cut = {name: value[rows] for name, value in given.items() if name != "conditions"}
    if "conditions" in given:
        cut["conditions"] = tuple(codes[rows] for codes in given["conditions"])
    return cut


def codes(count: int, size: tuple[int, int] = (4, 6)) -> torch.Tensor:
    return torch.randint(16, (count, *size), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def naive_generate(model, given, uniforms, size=(4, 6), prefix=None, **arguments):
    """The whole network again for every code; the logits of its position; one draw."""
    count = size[0] * size[1]
    indices = torch.zeros(len(uniforms), count, dtype=torch.long)
    first = 0
    if prefix is not None:
        first = prefix.shape[1] * size[1]
        indices[:, :first] = prefix.flatten(1)
    for position in range(first, count):
        logits = model(indices.view(-1, *size), **given).logits.flatten(2)[:, :, position]
        indices[:, position] = draw(logits, uniforms[:, position], **arguments)
    return indices.view(-1, *size)


@torch.no_grad()
@row_wise_products(torch.device("cpu"))
def cached_logits(model, indices, class_labels=None, conditions=(), given_rows: int = 0) -> torch.Tensor:
    """Logits (B, K, rows, w) of the rows from `given_rows` on, one step each; `indices` are what is fed."""
    batch, height, width = indices.shape
    decoder = Decoder(model)
    decoder.start(batch, width, class_labels, conditions)
    for row in range(given_rows):
        decoder.read_row(row, indices[:, row])
    logits = []
    for row in range(given_rows, height):
        decoder.begin_row(row)
        for column in range(width):
            logits.append(decoder.logits(decoder.columns(column)[:, 0]))
            decoder.write(indices[:, row, column : column + 1], column)
    return torch.stack(logits, dim=2).unflatten(2, (-1, width))


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize("given_rows", [0, 1, 3])
@pytest.mark.parametrize("kernels", [(5, 3), (3, 5), (7, 1)], ids=str)
def test_cached_logits_equal_uncached_ones(fields, given_rows, kernels):
    first, other = kernels
    model = tiny_pixelcnn(num_layers=3, first_kernel_size=first, kernel_size=other, num_output_layers=2, **fields)
    given, indices = given_for(model, 5), codes(5)
    with torch.no_grad():
        expected = model(indices, **given).logits[:, :, given_rows:]
    assert 0.3 < float(expected.std()) < 20  # the comparison would see an error
    cached = cached_logits(model, indices, given_rows=given_rows, **given)
    torch.testing.assert_close(cached, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 1), (8, 10)], ids=str)
@pytest.mark.parametrize("fields", [{}, UPPER | {"condition_factors": [1, 1]}], ids=option_name)
def test_cached_logits_equal_uncached_ones_on_other_grids(size, fields):
    model = tiny_pixelcnn(**fields)
    given, indices = given_for(model, 4, size), codes(4, size)
    with torch.no_grad():
        expected = model(indices, **given).logits
    torch.testing.assert_close(cached_logits(model, indices, **given), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize(
    "arguments", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}, {"temperature": 0}], ids=str
)
@pytest.mark.parametrize("rows", [0, 2])
def test_generate_equals_naive_sampling_with_the_same_uniforms(fields, arguments, rows):
    model = tiny_pixelcnn(num_layers=3, **fields)
    given, uniforms = given_for(model, 5), candidate_uniforms(3, [0] * 5, range(5), 24)
    prefix = codes(5)[:, :rows] if rows else None
    expected = naive_generate(model, given, uniforms, prefix=prefix, **arguments)
    drawn = model.generate(5, uniforms=uniforms, prefix_indices=prefix, **given, **arguments)
    assert torch.equal(drawn, expected)
    assert torch.equal(model.generate(5, seed=3, prefix_indices=prefix, **given, **arguments), expected)


@pytest.mark.parametrize("size", [(2, 9), (7, 4)], ids=str)
def test_generate_equals_naive_sampling_on_other_grids(size):
    uniforms = candidate_uniforms(3, [0] * 3, range(3), size[0] * size[1])
    model = tiny_pixelcnn()
    expected = naive_generate(model, {}, uniforms, size)
    assert torch.equal(model.generate(uniforms=uniforms, grid_size=size), expected)
    model = tiny_pixelcnn(condition_num_embeddings=[7], condition_factors=[2])
    size = (2 * size[0], 2 * size[1])
    given, uniforms = given_for(model, 2, size), torch.rand(2, size[0] * size[1])
    expected = naive_generate(model, given, uniforms, size)
    assert torch.equal(model.generate(uniforms=uniforms, **given), expected)  # the upper grid says the size


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize("rows", [0, 2])
def test_a_sample_is_the_same_in_any_batch(fields, rows):
    model = tiny_pixelcnn(**fields)
    given, prefix = given_for(model, 13), codes(13)[:, :rows]
    together = model.generate(13, seed=9, prefix_indices=prefix, **given)
    for batch_size in (1, 4, 5):
        assert torch.equal(model.generate(13, seed=9, prefix_indices=prefix, batch_size=batch_size, **given), together)
    for sample in (0, 12):
        row = slice(sample, sample + 1)
        alone = model.generate(
            uniforms=candidate_uniforms(9, [0], [sample], 24), prefix_indices=prefix[row], **rows_of(given, row)
        )
        assert torch.equal(alone, together[row])
    assert torch.equal(model.generate(4, seed=9, prefix_indices=prefix[:4], **rows_of(given, slice(4))), together[:4])


@pytest.mark.parametrize("size", [{}, {"hidden_size": 40, "num_attention_heads": 5}], ids=str)
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_logits_of_a_sample_are_bit_equal_in_any_batch_on_the_cpu(size, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        model = tiny_pixelcnn(**ATTENTION, **CLASSES, **UPPER, **size)
        given, indices = given_for(model, 33), codes(33)
        for given_rows in (0, 2):
            together = cached_logits(model, indices, given_rows=given_rows, **given)
            for count in (4, 5, 7, 16):
                some = cached_logits(model, indices[:count], given_rows=given_rows, **rows_of(given, slice(count)))
                assert torch.equal(some, together[:count])
    finally:
        torch.set_float32_matmul_precision(before)


def test_features_of_upper_grids_are_bit_equal_in_any_batch_on_the_cpu():
    model = tiny_pixelcnn(hidden_size=64, grid_height=32, grid_width=32, **UPPER)
    conditions, features = given_for(model, 17, (32, 32))["conditions"], {}
    for count in (17, 1, 4, 5):
        decoder = Decoder(model)
        with torch.no_grad():
            decoder.start(count, 32, None, tuple(codes[:count] for codes in conditions))
        features[count] = decoder.condition
    assert all(torch.equal(some, features[17][:count]) for count, some in features.items())


def test_a_small_batch_is_padded_to_the_rows_that_products_need(monkeypatch):
    lanes = []
    start = Decoder.start

    def recorded(self, batch, *args):
        lanes.append(batch)
        start(self, batch, *args)

    monkeypatch.setattr(Decoder, "start", recorded)
    assert tiny_pixelcnn().generate(6, seed=0, batch_size=5).shape == (6, 4, 6)
    assert lanes == [5, MIN_ROWS]


@pytest.mark.parametrize("fields", [{}, ATTENTION], ids=option_name)
def test_completion_keeps_the_given_rows_and_one_prefix_serves_all(fields):
    model, prefix = tiny_pixelcnn(**fields), codes(3)[:, :2]
    drawn = model.generate(prefix_indices=prefix, seed=0)
    assert drawn.shape == (3, 4, 6) and torch.equal(drawn[:, :2], prefix)
    of_all = model.generate(3, prefix_indices=prefix[0], seed=0)
    assert torch.equal(of_all[:, :2], prefix[:1].expand(3, -1, -1)) and torch.equal(of_all[0], drawn[0])
    assert not torch.equal(of_all[1:], drawn[1:])
    none_given = model.generate(3, prefix_indices=prefix[:, :0], seed=0)
    assert torch.equal(none_given, model.generate(3, seed=0))


def test_one_class_and_one_upper_grid_serve_all_samples():
    model = tiny_pixelcnn(**CLASSES, **UPPER)
    upper = given_for(model, 1)["conditions"]
    shared = model.generate(3, class_labels=2, conditions=upper, seed=0)
    each = model.generate(
        class_labels=torch.tensor([2, 2, 2]), conditions=tuple(grid.expand(3, -1, -1) for grid in upper), seed=0
    )
    assert torch.equal(shared, each) and not torch.equal(shared[0], shared[1])
    other = model.generate(3, class_labels=torch.tensor([1, 2, 0]), conditions=upper, seed=0)
    assert torch.equal(other[1], shared[1]) and not torch.equal(other[0], shared[0])


def test_codes_follow_the_distribution_of_the_model():
    model = tiny_pixelcnn(num_layers=2, hidden_size=8)
    drawn = model.generate(4000, seed=0, grid_size=(1, 2))
    with torch.no_grad():
        first = model(torch.tensor([[[0, 0]]])).logits[0, :, 0, 0].double().softmax(0)
        pairs = torch.stack([torch.arange(16), torch.zeros(16, dtype=torch.long)], dim=1)[:, None]
        second = model(pairs).logits[:, :, 0, 1].double().softmax(1)
    probabilities = (first[:, None] * second).flatten()
    counts = torch.bincount(drawn[:, 0, 0] * 16 + drawn[:, 0, 1], minlength=256).double()
    frequent = probabilities * 4000 > 5
    expected = probabilities[frequent] * 4000
    chi_square, freedom = float(((counts[frequent] - expected) ** 2 / expected).sum()), len(expected)
    assert freedom > 50 and chi_square < freedom + 3.1 * (2 * freedom) ** 0.5  # p = 0.001


def test_seeds_differ_and_without_one_torchs_generator_is_used():
    model = tiny_pixelcnn()
    drawn = model.generate(6, seed=0)
    assert len({tuple(grid.flatten().tolist()) for grid in drawn}) == 6 and drawn.dtype == torch.int64
    assert not torch.equal(drawn, model.generate(6, seed=1))
    torch.manual_seed(0)
    first = model.generate(2)
    assert not torch.equal(first, model.generate(2))
    torch.manual_seed(0)
    assert torch.equal(first, model.generate(2))


def test_the_vertical_stack_is_computed_once_a_row_and_a_step_costs_one_column(monkeypatch):
    from mosaics.models.pixelcnn.decoder import LayerDecoder

    calls = []
    for name in ("begin_row", "columns"):
        original = getattr(LayerDecoder, name)

        def counted(self, *args, name=name, original=original):
            calls.append((name, args[1] if name == "columns" else 0))
            return original(self, *args)

        monkeypatch.setattr(LayerDecoder, name, counted)
    tiny_pixelcnn().generate(seed=0, prefix_indices=codes(1)[0, :1])
    assert calls.count(("begin_row", 0)) == 4 * 4  # layers times rows
    assert calls.count(("columns", 1)) == 4 * 18 == len(calls) - 16  # the given row needs no horizontal stack
    calls.clear()
    tiny_pixelcnn(**ATTENTION).generate(seed=0, prefix_indices=codes(1)[0, :1])
    assert calls.count(("columns", 6)) == 4  # attention needs it: one pass


def test_the_callback_sees_every_code_and_an_interrupt_leaves_the_model_usable():
    model, steps = tiny_pixelcnn(), []
    expected = model.generate(5, seed=0)

    def record(step):
        steps.append((step.first_sample, step.position, len(step.indices)))
        drawn = expected.flatten(1)[step.first_sample : step.first_sample + len(step.indices)]
        assert torch.equal(step.indices[:, : step.position + 1], drawn[:, : step.position + 1])
        assert step.num_positions == 24

    model.generate(5, seed=0, batch_size=3, callback=record)
    assert steps == [(first, position, count) for first, count in [(0, 3), (3, 2)] for position in range(24)]

    def interrupt(step):
        if step.position == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(5, seed=0, callback=interrupt)
    assert torch.equal(model.generate(5, seed=0), expected)


def test_training_mode_gradients_and_autocast_do_not_matter():
    model = tiny_pixelcnn(dropout=0.5, **ATTENTION, **UPPER)
    given = given_for(model, 2)
    expected = model.generate(seed=0, **given)
    assert torch.equal(model.train().generate(seed=0, **given), expected)
    assert all(module.training for module in model.modules())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.generate(seed=0, **given), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_changed_weights_are_used_at_once():
    model = tiny_pixelcnn()
    before = model.generate(2, seed=0)
    with torch.no_grad():
        model.layers[1].horizontal_conv.weight.mul_(-1)
    after = model.generate(2, seed=0)
    assert not torch.equal(before, after)
    assert torch.equal(after, naive_generate(model, {}, candidate_uniforms(0, [0, 0], [0, 1], 24)))


def test_half_precision_weights_draw_from_nearly_the_same_distribution():
    model, indices = tiny_pixelcnn(**ATTENTION), codes(4)
    exact = cached_logits(model, indices)
    half = cached_logits(model.to(torch.bfloat16), indices)
    assert half.dtype == torch.float32
    assert float((half - exact).abs().mean()) < 0.1 * float(exact.std())
    assert model.generate(3, seed=0).shape == (3, 4, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"temperature": -1.0}, "temperature must be a finite number of at least 0"),
        ({"top_k": 17}, "top_k must be an integer from 1 to the vocabulary size 16"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 0, "uniforms": torch.zeros(2, 24)}, "uniforms or seed, not both"),
        ({"uniforms": torch.zeros(2, 7)}, r"uniforms must be floats of shape .* = \(2, 24\), got"),
        ({"uniforms": torch.zeros(3, 24)}, "class_labels must have one row for all samples, or num_samples=3, got 2"),
        ({"uniforms": torch.ones(2, 24)}, r"uniforms must be in \[0, 1\)"),
        ({"prefix_indices": torch.zeros(2, 7, dtype=torch.long)}, r"prefix_indices must be of shape \(n, 6\)"),
        ({"prefix_indices": torch.zeros(4, 6, dtype=torch.long)}, "must leave at least one of 4 rows to draw, got 4"),
        ({"prefix_indices": torch.zeros(5, 1, 6, dtype=torch.long)}, "must have one row for all samples"),
        ({"prefix_indices": torch.full((1, 6), 16)}, "prefix_indices must be from 0 to num_embeddings - 1 = 15"),
        ({"class_labels": None}, "class_labels are missing"),
        ({"class_labels": 3}, "class_labels must be from 0 to num_classes - 1 = 2"),
        ({"class_labels": torch.zeros(2, 1, dtype=torch.long)}, r"class_labels must be of shape \(batch,\)"),
        ({"class_labels": torch.zeros(0, dtype=torch.long)}, "class_labels must have one row"),
        ({"conditions": None}, "conditions must be a tuple of 2 upper code grids"),
        ({"grid_size": (8, 12)}, r"conditions\[0\] has 2 x 3 codes, which belong to a grid of 4 x 6 .* not of 8 x 12"),
    ],
)
def test_bad_input_is_named(arguments, message):
    model = tiny_pixelcnn(**CLASSES, **UPPER)
    with pytest.raises(ValueError, match=message):
        model.generate(**(given_for(model, 2) | arguments))


def test_the_grid_is_checked():
    with pytest.raises(ValueError, match="Attention fixes the grid"):
        tiny_pixelcnn(**ATTENTION).generate(grid_size=(4, 5))
    with pytest.raises(ValueError, match=r"grid_size must be two integers \(rows, columns\)"):
        tiny_pixelcnn().generate(grid_size=(4, 5, 6))
    with pytest.raises(ValueError, match="grid_size must be at least 1 x 1, got 0 x 3"):
        tiny_pixelcnn().generate(grid_size=(0, 3))
