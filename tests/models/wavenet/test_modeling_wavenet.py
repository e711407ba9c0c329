import math

import pytest
import torch

from mosaics.models.wavenet import WaveNet, WaveNetConfig
from testing_utils import tiny_wavenet

CLASSES = {"num_classes": 3}
SLOWER = {"condition_num_embeddings": 7, "condition_factor": 3}
OPTIONS = [{}, CLASSES, SLOWER, CLASSES | SLOWER]


def option_name(fields: dict) -> str:
    return "+".join(key for key in fields if key.startswith(("num_", "condition_f"))) or "plain"


def inputs(model: WaveNet, batch: int = 3, length: int = 24, seed: int = 0) -> dict:
    """What `forward` needs for a model of any options."""
    generator, config = torch.Generator().manual_seed(seed), model.config
    given = {"indices": torch.randint(config.num_embeddings, (batch, length), generator=generator)}
    if config.num_classes is not None:
        given["class_labels"] = torch.randint(config.num_classes, (batch,), generator=generator)
    if config.condition_factor is not None:
        shape = (batch, length // config.condition_factor)
        given["conditions"] = torch.randint(config.condition_num_embeddings, shape, generator=generator)
    return given


def times_seen(model: WaveNet, length: int) -> torch.Tensor:
    """(T, T) bool: [t, s] says whether the logits at t depend on the code at s, by gradient."""
    model = model.double()
    embedded = []
    hook = model.embedding.register_forward_hook(lambda module, args, output: embedded.append(output))
    logits = model(**inputs(model, batch=1, length=length)).logits
    hook.remove()
    mixed = torch.randn(logits.shape[1], dtype=torch.double) @ logits[0]
    seen = torch.zeros(length, length, dtype=torch.bool)
    for time, value in enumerate(mixed):
        (gradient,) = torch.autograd.grad(value, embedded[0], retain_graph=True)  # (1, T - 1, hidden_size)
        seen[time, :-1] = gradient[0].abs().sum(dim=-1) > 0
    return seen


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
@pytest.mark.parametrize(("kernel", "stacks", "layers", "reach"), [(2, 2, 3, 15), (3, 1, 3, 15), (4, 2, 1, 7)])
def test_a_code_depends_on_the_receptive_field_before_it_and_on_no_other(fields, kernel, stacks, layers, reach):
    model = tiny_wavenet(kernel_size=kernel, num_stacks=stacks, layers_per_stack=layers, **fields)
    assert model.config.receptive_field == reach
    everything = torch.ones(24, 24, dtype=torch.bool)
    assert torch.equal(times_seen(model, 24), everything.tril(-1) & everything.triu(-reach))


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
def test_changing_a_code_changes_no_logits_up_to_its_own(fields):
    model = tiny_wavenet(**fields)
    given = inputs(model, batch=1)
    with torch.no_grad():
        before = model(**given).logits
        for time in range(24):
            changed = given["indices"].clone()
            changed[0, time] = (changed[0, time] + 5) % 16
            after = model(**(given | {"indices": changed})).logits
            assert torch.equal(after[:, :, : time + 1], before[:, :, : time + 1])
            if time < 23:
                assert not torch.equal(after[:, :, time + 1], before[:, :, time + 1])


def test_the_loss_is_the_mean_cross_entropy_in_nats():
    model = tiny_wavenet()
    given = inputs(model)
    output = model(**given)
    assert output.logits.shape == (3, 16, 24)
    terms = [-output.logits[b, :, t].log_softmax(0)[given["indices"][b, t]] for b in range(3) for t in range(24)]
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())


def test_the_probabilities_of_all_sequences_add_up_to_one():
    model = tiny_wavenet(num_embeddings=2).double()
    sequences = torch.tensor([[number >> bit & 1 for bit in range(6)] for number in range(64)])
    with torch.no_grad():
        logits = model(sequences).logits
    log_probabilities = logits.log_softmax(1).gather(1, sequences[:, None]).flatten(1).sum(dim=1)
    torch.testing.assert_close(log_probabilities.exp().sum(), torch.tensor(1.0, dtype=torch.double))
    assert float(log_probabilities.exp().std()) > 1e-3


def test_the_first_code_is_predicted_from_class_and_slower_sequence_alone():
    model = tiny_wavenet(**CLASSES, **SLOWER)
    given = inputs(model, batch=1)
    with torch.no_grad():
        before = model(**given).logits
        other_class = model(**(given | {"class_labels": (given["class_labels"] + 1) % 3})).logits
        assert bool((other_class != before).any(dim=1).all())
        other = model(**(given | {"conditions": (given["conditions"] + 1) % 7})).logits
        assert bool((other != before).any(dim=1).all())
        assert torch.equal(model(**(given | {"indices": (given["indices"] + 1) % 16})).logits[..., 0], before[..., 0])


def test_a_slower_code_acts_from_one_before_its_own_time_on():
    model = tiny_wavenet(num_stacks=1, layers_per_stack=1, **SLOWER)
    given = inputs(model, batch=1)
    changed = given["conditions"].clone()
    changed[0, 4] = (changed[0, 4] + 1) % 7
    with torch.no_grad():
        difference = model(**given).logits - model(**(given | {"conditions": changed})).logits
    moved = (difference[0] != 0).any(dim=0)
    # The convolution over the slower sequence has three taps: the codes 3, 4 and 5, three times each.
    assert moved.tolist() == [9 <= time < 18 for time in range(24)]


def test_a_layer_is_the_one_of_the_paper():
    model = tiny_wavenet(**CLASSES, **SLOWER)
    layer, last = model.layers[1], model.layers[-1]
    features, condition = torch.randn(2, 12, 9), torch.randn(2, 12, 9)
    labels = torch.tensor([2, 0])
    with torch.no_grad():
        weight, bias = layer.conv.weight, layer.conv.bias
        gate = torch.stack(
            [
                features[..., t] @ weight[..., 1].T + (features[..., t - 2] @ weight[..., 0].T if t >= 2 else 0)
                for t in range(9)
            ],
            dim=-1,
        )
        gate = gate + bias[:, None] + layer.class_bias.weight[labels][..., None] + layer.condition_bias(condition)
        gated = torch.tanh(gate[:, :12]) * torch.sigmoid(gate[:, 12:])
        residual, skip = layer(features, labels, condition)
        assert layer.conv.dilation == (2,)
        torch.testing.assert_close(residual, features + layer.residual(gated))
        torch.testing.assert_close(skip, layer.skip(gated))
        assert last.residual is None and last(features, labels, condition)[0] is features


def test_dilations_double_within_a_stack():
    assert WaveNetConfig().dilations == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) * 3
    assert WaveNetConfig().receptive_field == 3 * 1023 + 1
    assert [layer.conv.dilation[0] for layer in tiny_wavenet().layers] == [1, 2, 4, 1, 2, 4]


@pytest.mark.parametrize("fields", OPTIONS, ids=option_name)
def test_saving_and_loading_is_bit_equal(fields, tmp_path):
    model = tiny_wavenet(codebook_id="abc", **fields)
    model.save_pretrained(tmp_path)
    loaded = WaveNet.from_pretrained(tmp_path)
    assert loaded.config.codebook_id == "abc" and loaded.config.dilations == model.config.dilations
    assert not list(model.buffers())
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    given = inputs(model)
    with torch.no_grad():
        assert torch.equal(model(**given).logits, loaded(**given).logits)
    assert not bool(times_seen(loaded, 24).triu().any())


def test_auto_classes_know_the_model(tmp_path):
    from transformers import AutoConfig, AutoModel

    tiny_wavenet().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), WaveNetConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), WaveNet)


def test_initial_weights_keep_the_signal_and_begin_with_equal_probabilities():
    model = tiny_wavenet(hidden_size=96, skip_size=96, layers_per_stack=6, initializer_range=0.02)
    spreads = []
    for layer in model.layers:
        layer.register_forward_hook(
            lambda module, args, output: spreads.append([part.std().item() for part in output])
        )
    with torch.no_grad():
        assert abs(float(model(**inputs(model, length=100)).loss) - math.log(16)) < 0.1
    assert 0.8 < spreads[0][0] <= spreads[-1][0] < 3 and 0.5 < spreads[-1][1] / spreads[0][1] < 3


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_wavenet(dropout=0.1, **CLASSES, **SLOWER).train()
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
    model = tiny_wavenet(**CLASSES, **SLOWER)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs(model))
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(**inputs(model)).loss, rtol=0.02, atol=0.02)
    output.loss.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_every_parameter_has_a_gradient():
    model = tiny_wavenet(**CLASSES, **SLOWER)
    model(**inputs(model)).loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_the_model_learns_a_sequence_by_heart():
    model = tiny_wavenet(hidden_size=32, skip_size=32, num_classes=2, initializer_range=0.02).train()
    given = inputs(model, batch=2) | {"class_labels": torch.tensor([0, 1])}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(**given).loss.backward()
        optimizer.step()
    drawn = model.eval().generate(length=24, class_labels=given["class_labels"], temperature=0)
    assert torch.equal(drawn, given["indices"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": torch.zeros(3, 4, 6, dtype=torch.long)}, r"indices must be of shape \(batch, length\), got"),
        ({"indices": torch.zeros(3, 0, dtype=torch.long)}, "indices must be of shape"),
        ({"indices": torch.zeros(3, 24)}, "indices must be int64"),
        ({"indices": torch.full((3, 24), 16)}, "indices must be from 0 to num_embeddings - 1 = 15, got values from"),
        ({"class_labels": None}, "class_labels are missing: the model has 3 classes"),
        ({"class_labels": torch.tensor([0, 1])}, r"class_labels must be of shape \(batch=3,\), got \(2,\)"),
        ({"class_labels": torch.tensor([0, 1, -1])}, "class_labels must be from 0 to num_classes - 1 = 2"),
        ({"conditions": None}, r"conditions are missing: one code for every 3 \(config.condition_factor\)"),
        ({"conditions": torch.zeros(3, 8, 1, dtype=torch.long)}, r"conditions must be of shape \(batch, length / 3\)"),
        ({"conditions": torch.zeros(3, 7, dtype=torch.long)}, "has 7 codes, which belong to 21 codes .* not to 24"),
        ({"conditions": torch.zeros(2, 8, dtype=torch.long)}, "conditions must have 3 sequences as indices, got 2"),
        ({"conditions": torch.full((3, 8), 7)}, "conditions must be from 0 to condition_num_embeddings - 1 = 6"),
    ],
)
def test_bad_input_is_named(change, message):
    model = tiny_wavenet(**CLASSES, **SLOWER)
    with pytest.raises((ValueError, TypeError), match=message):
        model(**(inputs(model) | change))


def test_what_the_model_cannot_use_is_refused():
    model = tiny_wavenet()
    with pytest.raises(ValueError, match="class_labels were given to a model without classes"):
        model(**inputs(model), class_labels=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="conditions were given to a model without any"):
        model(**inputs(model), conditions=torch.zeros(3, 8, dtype=torch.long))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"layers_per_stack": 0}, "layers_per_stack must be at least 1"),
        ({"kernel_size": 1}, "kernel_size must be at least 2, got 1"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"condition_factor": 2}, "belong together, got None and 2"),
        ({"condition_factor": 0, "condition_num_embeddings": 4}, "must be at least 1, got 4 and 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"num_stacks": "8"}, "num_stacks"),
    ],
)
def test_a_bad_configuration_is_named(fields, message):
    with pytest.raises(Exception, match=message):
        WaveNetConfig(**fields)


def test_a_tuple_is_returned_when_asked_for():
    model, indices = tiny_wavenet(), torch.randint(16, (2, 10))
    with torch.no_grad():
        loss, logits = model(indices, return_dict=False)
        assert torch.equal(loss, model(indices).loss) and torch.equal(logits, model(indices).logits)
