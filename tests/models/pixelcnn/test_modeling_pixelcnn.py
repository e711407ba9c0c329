import math

import pytest
import torch

from mosaics.models.pixelcnn import PixelCNN, PixelCNNConfig
from testing_utils import tiny_pixelcnn

ATTENTION = {"num_attention_layers": 2}
CLASSES = {"num_classes": 3}
UPPER = {"condition_num_embeddings": [7, 9], "condition_factors": [2, 1]}
OPTIONS = [{}, ATTENTION, CLASSES, UPPER, ATTENTION | CLASSES | UPPER]


def option_name(fields: dict) -> str:
    return "+".join(key for key in fields if key.startswith(("num_", "condition_f"))) or "plain"


def inputs(model: PixelCNN, batch: int = 3, size: tuple[int, int] = (4, 6), seed: int = 0) -> dict:
    """What `forward` needs for a model of any options."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    given = {"indices": torch.randint(config.num_embeddings, (batch, *size), generator=generator)}
    if config.num_classes is not None:
        given["class_labels"] = torch.randint(config.num_classes, (batch,), generator=generator)
    if config.upper_grids:
        given["conditions"] = tuple(
            torch.randint(count, (batch, size[0] // factor, size[1] // factor), generator=generator)
            for count, factor in config.upper_grids
        )
    return given


def positions_seen(model: PixelCNN, size: tuple[int, int]) -> torch.Tensor:
    """(N, N) bool: [p, q] says whether the logits at raster position p depend on the code at q, by gradient."""
    model = model.double()
    embedded = []
    hook = model.embedding.register_forward_hook(lambda module, args, output: embedded.append(output))
    logits = model(**inputs(model, batch=1, size=size)).logits
    hook.remove()
    mixed = torch.einsum("k,kij->ij", torch.randn(logits.shape[1], dtype=torch.double), logits[0]).flatten()
    rows = [torch.autograd.grad(value, embedded[0], retain_graph=True)[0] for value in mixed]
    return torch.stack([row[0].abs().sum(dim=-1).flatten() > 0 for row in rows])


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize("kernels", [(5, 3), (3, 3), (7, 5)], ids=str)
def test_a_code_depends_on_all_earlier_ones_and_on_no_other(fields, kernels):
    first, other = kernels
    layers = 4 if first == 5 else 5
    model = tiny_pixelcnn(num_layers=layers, first_kernel_size=first, kernel_size=other, **fields)
    expected = torch.ones(24, 24, dtype=torch.bool).tril(-1)
    assert torch.equal(positions_seen(model, (4, 6)), expected)


@pytest.mark.parametrize("size", [(7, 3), (1, 9), (6, 1), (2, 2)], ids=str)
def test_there_is_no_blind_spot_on_grids_of_other_sizes(size):
    model = tiny_pixelcnn(num_layers=9, first_kernel_size=3)
    count = size[0] * size[1]
    assert torch.equal(positions_seen(model, size), torch.ones(count, count, dtype=torch.bool).tril(-1))


def test_the_receptive_field_grows_with_the_layers_as_the_kernels_say():
    seen = positions_seen(tiny_pixelcnn(num_layers=2, first_kernel_size=3, grid_height=7, grid_width=7), (7, 7))
    seen = seen[3 * 7 + 3].view(7, 7)
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:3, 1:6] = True  # two layers of 3 x 3: two rows up, two columns to each side, no corner missing
    expected[3, 1:3] = True
    assert torch.equal(seen, expected)


def test_attention_sees_what_the_convolutions_do_not():
    fields = {"num_layers": 1, "first_kernel_size": 3}
    assert positions_seen(tiny_pixelcnn(**fields), (4, 6)).sum() < 24 * 4
    seen = positions_seen(tiny_pixelcnn(**fields, num_attention_layers=1), (4, 6))
    assert not bool((seen & ~torch.ones(24, 24, dtype=torch.bool).tril(-1)).any())
    assert torch.equal(seen[23], torch.arange(24) < 23)


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
def test_changing_a_code_changes_no_logits_up_to_its_own(fields):
    model = tiny_pixelcnn(**fields)
    given = inputs(model, batch=1)
    with torch.no_grad():
        before = model(**given).logits.flatten(2)
        for position in range(24):
            changed = given["indices"].clone()
            changed.view(-1)[position] = (changed.view(-1)[position] + 5) % 16
            after = model(**(given | {"indices": changed})).logits.flatten(2)
            assert torch.equal(after[:, :, : position + 1], before[:, :, : position + 1])
            if position < 23:
                assert not torch.equal(after[:, :, position + 1], before[:, :, position + 1])


def test_the_loss_is_the_mean_cross_entropy_in_nats():
    model = tiny_pixelcnn()
    given = inputs(model)
    output = model(**given)
    assert output.logits.shape == (3, 16, 4, 6)
    terms = [
        -output.logits[b, :, i, j].log_softmax(0)[given["indices"][b, i, j]]
        for b in range(3)
        for i in range(4)
        for j in range(6)
    ]
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())


def test_the_probabilities_of_all_grids_add_up_to_one():
    model = tiny_pixelcnn(num_embeddings=2, num_attention_layers=1, grid_height=2, grid_width=3).double()
    grids = torch.tensor([[number >> bit & 1 for bit in range(6)] for number in range(64)]).view(64, 2, 3)
    with torch.no_grad():
        logits = model(grids).logits
    log_probabilities = logits.log_softmax(1).gather(1, grids[:, None]).flatten(1).sum(dim=1)
    torch.testing.assert_close(log_probabilities.exp().sum(), torch.tensor(1.0, dtype=torch.double))
    assert float(log_probabilities.exp().std()) > 1e-3


def test_class_and_upper_grids_act_on_every_position():
    model = tiny_pixelcnn(**CLASSES, **UPPER)
    given = inputs(model, batch=1)
    with torch.no_grad():
        before = model(**given).logits
        other_class = model(**(given | {"class_labels": (given["class_labels"] + 1) % 3})).logits
        assert bool((other_class != before).any(dim=1).all())
        for level, count in enumerate((7, 9)):
            conditions = list(given["conditions"])
            conditions[level] = (conditions[level] + 1) % count
            assert bool((model(**(given | {"conditions": tuple(conditions)})).logits != before).any(dim=1).all())


def test_an_upper_code_acts_on_the_codes_it_lies_over():
    model = tiny_pixelcnn(num_layers=1, first_kernel_size=3, num_conditioning_blocks=0, grid_height=8, grid_width=8,
                          condition_num_embeddings=[5], condition_factors=[4])  # fmt: skip
    given = inputs(model, batch=1, size=(8, 8))
    changed = given["conditions"][0].clone()
    changed[0, 0, 1] = (changed[0, 0, 1] + 1) % 5
    with torch.no_grad():
        difference = model(**given).logits - model(**(given | {"conditions": (changed,)})).logits
    moved = (difference[0] != 0).any(dim=0)
    assert bool(moved[:4, 4:].all())  # its own block
    assert not bool(moved[7].any()) and not bool(moved[:, 0].any())  # the reach of two doublings is three codes


def test_gates_are_those_of_equations_4_and_5():
    model = tiny_pixelcnn(num_layers=2, **CLASSES, **UPPER)
    layer = model.layers[1]
    vertical, horizontal, condition = (torch.randn(2, 12, 4, 6) for _ in range(3))
    labels = torch.tensor([2, 0])
    with torch.no_grad():
        bias = layer.class_bias.weight[labels][:, :, None, None] + layer.condition_bias(condition)
        below = layer.vertical_conv(vertical) + bias[:, :24]
        beside = layer.horizontal_conv(horizontal) + layer.vertical_to_horizontal(below) + bias[:, 24:]
        gated = torch.tanh(beside[:, :12]) * torch.sigmoid(beside[:, 12:])
        new_vertical, new_horizontal = layer(vertical, horizontal, labels, condition)
    torch.testing.assert_close(new_vertical, torch.tanh(below[:, :12]) * torch.sigmoid(below[:, 12:]))
    torch.testing.assert_close(new_horizontal, horizontal + layer.output(gated).detach())


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
def test_saving_and_loading_is_bit_equal(fields, tmp_path):
    model = tiny_pixelcnn(codebook_id="abc", **fields)
    model.save_pretrained(tmp_path)
    loaded = PixelCNN.from_pretrained(tmp_path)
    assert loaded.config.codebook_id == "abc" and loaded.config.upper_grids == model.config.upper_grids
    assert not list(model.buffers())  # no mask that could be lost
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    given = inputs(model)
    with torch.no_grad():
        assert torch.equal(model(**given).logits, loaded(**given).logits)
    seen = positions_seen(loaded, (4, 6))
    assert not bool((seen & ~torch.ones(24, 24, dtype=torch.bool).tril(-1)).any())


def test_auto_classes_know_the_model(tmp_path):
    from transformers import AutoConfig, AutoModel

    tiny_pixelcnn().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), PixelCNNConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), PixelCNN)


def test_initial_weights_keep_the_signal_and_begin_with_equal_probabilities():
    model = tiny_pixelcnn(hidden_size=96, num_layers=12, initializer_range=0.02, **CLASSES)
    given = inputs(model, size=(12, 12))
    spreads = []
    for layer in model.layers:
        layer.register_forward_hook(
            lambda module, args, output: spreads.append([part.std().item() for part in output])
        )
    with torch.no_grad():
        assert abs(float(model(**given).loss) - math.log(16)) < 0.1
    assert 0.5 < spreads[-1][0] / spreads[1][0] < 2 and 0.2 < spreads[-1][1] < 3


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_pixelcnn(dropout=0.1, **ATTENTION, **CLASSES, **UPPER).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
            assert all(layer.gradient_checkpointing for layer in model.layers)
        torch.manual_seed(5)
        model(**inputs(model)).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_autocast_trains_in_bfloat16_with_a_float32_loss():
    model = tiny_pixelcnn(**ATTENTION, **CLASSES, **UPPER)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs(model))
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(**inputs(model)).loss, rtol=0.02, atol=0.02)
    output.loss.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_every_parameter_has_a_gradient():
    model = tiny_pixelcnn(**ATTENTION, **CLASSES, **UPPER)
    model(**inputs(model)).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


def test_the_model_learns_a_grid_by_heart():
    model = tiny_pixelcnn(hidden_size=32, num_layers=3, num_classes=2, initializer_range=0.02).train()
    given = inputs(model, batch=2) | {"class_labels": torch.tensor([0, 1])}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(**given).loss.backward()
        optimizer.step()
    drawn = model.eval().generate(class_labels=given["class_labels"], temperature=0)
    assert torch.equal(drawn, given["indices"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": torch.zeros(3, 24, dtype=torch.long)}, r"indices must be of shape \(batch, rows, columns\), got"),
        ({"indices": torch.zeros(0, 4, 6, dtype=torch.long)}, "indices must be of shape"),
        ({"indices": torch.zeros(3, 4, 6)}, "indices must be int64"),
        ({"indices": torch.full((3, 4, 6), 16)}, "indices must be from 0 to num_embeddings - 1 = 15, got values from"),
        ({"indices": torch.full((3, 4, 6), -1)}, "got values from -1 to -1"),
        ({"indices": torch.zeros(3, 8, 6, dtype=torch.long)}, "Attention fixes the grid|belong to a grid of 4 x 6"),
        ({"class_labels": None}, "class_labels are missing: the model has 3 classes"),
        ({"class_labels": torch.tensor([0, 1])}, r"class_labels must be of shape \(batch=3,\), got \(2,\)"),
        ({"class_labels": torch.tensor([0, 1, 3])}, "class_labels must be from 0 to num_classes - 1 = 2"),
        ({"class_labels": torch.tensor([0.0, 1.0, 2.0])}, "class_labels must be int64"),
        ({"conditions": None}, "conditions must be a tuple of 2 upper code grids, top first"),
        ({"conditions": torch.zeros(3, 2, 3, dtype=torch.long)}, "got Tensor"),
        ({"conditions": (torch.zeros(3, 2, 3, dtype=torch.long),)}, "conditions must be a tuple of 2 .* got 1"),
        (
            {"conditions": (torch.zeros(3, 2, 2, dtype=torch.long), torch.zeros(3, 4, 6, dtype=torch.long))},
            r"conditions\[0\] has 2 x 2 codes, which belong to a grid of 4 x 4 .* not of 4 x 6",
        ),
        (
            {"conditions": (torch.full((3, 2, 3), 7), torch.zeros(3, 4, 6, dtype=torch.long))},
            r"conditions\[0\] must be from 0 to condition_num_embeddings\[0\] - 1 = 6",
        ),
        (
            {"conditions": (torch.zeros(3, 6, dtype=torch.long), torch.zeros(3, 4, 6, dtype=torch.long))},
            r"conditions\[0\] must be of shape \(batch, rows, columns\)",
        ),
        (
            {"conditions": (torch.zeros(2, 2, 3, dtype=torch.long), torch.zeros(3, 4, 6, dtype=torch.long))},
            r"conditions\[0\] must have 3 grids as indices, got 2",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    model = tiny_pixelcnn(**ATTENTION, **CLASSES, **UPPER)
    with pytest.raises((ValueError, TypeError), match=message):
        model(**(inputs(model) | change))


def test_what_the_model_cannot_use_is_refused():
    model = tiny_pixelcnn()
    with pytest.raises(ValueError, match="class_labels were given to a model without classes"):
        model(**inputs(model), class_labels=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="conditions were given to a model without upper grids"):
        model(**inputs(model), conditions=(torch.zeros(3, 4, 6, dtype=torch.long),))
    with pytest.raises(ValueError, match=r"Attention fixes the grid: expected 4 x 6 codes .* got 5 x 6"):
        tiny_pixelcnn(**ATTENTION)(torch.zeros(1, 5, 6, dtype=torch.long))


def test_the_default_configuration_is_the_papers():
    config = PixelCNNConfig()
    assert (config.num_layers, config.hidden_size, config.kernel_size, config.grid_size) == (20, 384, 5, (32, 32))
    assert not config.attention_layers and not config.upper_grids and config.num_classes is None
    top = PixelCNNConfig(num_attention_layers=4, hidden_size=512)
    assert sorted(top.attention_layers) == [4, 9, 14, 19]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"num_output_layers": -1}, "num_output_layers must be at least 0"),
        ({"first_kernel_size": 1}, "first_kernel_size must be odd and at least 3, got 1"),
        ({"kernel_size": 4}, "kernel_size must be odd and at least 1, got 4"),
        ({"num_attention_layers": 21}, "num_attention_layers must be from 0 to num_layers = 20, got 21"),
        ({"num_attention_layers": 1, "num_attention_heads": 7}, "must be a multiple of num_attention_heads"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"condition_factors": [2]}, "one entry for every upper grid, got 0 and 1"),
        ({"condition_factors": [3], "condition_num_embeddings": [5]}, "condition_factors must be powers of 2"),
        ({"condition_factors": [64], "condition_num_embeddings": [5]}, "must divide the grid of 32 x 32"),
        ({"condition_factors": [2], "condition_num_embeddings": [0]}, "condition_num_embeddings must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"num_layers": "8"}, "num_layers"),
    ],
)
def test_a_bad_configuration_is_named(fields, message):
    with pytest.raises(Exception, match=message):
        PixelCNNConfig(**fields)


def test_a_tuple_is_returned_when_asked_for():
    model, indices = tiny_pixelcnn(), torch.randint(16, (2, 4, 6))
    with torch.no_grad():
        loss, logits = model(indices, return_dict=False)
        assert torch.equal(loss, model(indices).loss) and torch.equal(logits, model(indices).logits)
