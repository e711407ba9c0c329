"""Several codes at each position of the grid."""

import pytest
import torch

from mosaics.layers.inference import row_wise_products
from mosaics.models.pixelcnn import PixelCNN
from mosaics.models.pixelcnn.decoder import Decoder
from mosaics.sampling import candidate_uniforms, draw
from testing_utils import tiny_pixelcnn

L, SHAPE = 3, (4, 6, 3)
OPTIONS = [{}, {"num_attention_layers": 2}, {"num_classes": 3}]


def model_of(**fields) -> PixelCNN:
    return tiny_pixelcnn(latents_per_position=L, num_output_layers=2, **fields)


def codes(count: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randint(16, (count, *shape), generator=torch.Generator().manual_seed(1))


def labels(model: PixelCNN, count: int) -> dict:
    return {} if model.config.num_classes is None else {"class_labels": torch.arange(count) % 3}


@torch.no_grad()
def naive_generate(model, given, uniforms, prefix=None, **arguments):
    """The whole network again for every code; the logits of its position; one draw."""
    indices, first = torch.zeros(len(uniforms), 4 * 6 * L, dtype=torch.long), 0
    if prefix is not None:
        first = prefix[0].numel()
        indices[:, :first] = prefix.flatten(1)
    for position in range(first, indices.shape[1]):
        logits = model(indices.view(-1, *SHAPE), **given).logits.flatten(2)[:, :, position]
        indices[:, position] = draw(logits, uniforms[:, position], **arguments)
    return indices.view(-1, *SHAPE)


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
def test_changing_a_code_changes_no_logits_up_to_its_own_and_the_next(fields):
    model = model_of(**fields)
    indices, given = codes(1), labels(model, 1)
    with torch.no_grad():
        before = model(indices, **given).logits.flatten(2)
        for position in range(before.shape[2]):
            changed = indices.clone()
            changed.view(-1)[position] = (changed.view(-1)[position] + 5) % 16
            after = model(changed, **given).logits.flatten(2)
            assert torch.equal(after[:, :, : position + 1], before[:, :, : position + 1])
            if position + 1 < before.shape[2]:
                assert not torch.equal(after[:, :, position + 1], before[:, :, position + 1])


def test_a_code_depends_on_every_earlier_one():
    model = model_of(num_layers=5).double()
    generator = torch.Generator().manual_seed(2)
    reached = torch.zeros(72, 72, dtype=torch.bool)
    with torch.no_grad():
        before = model(codes(1)).logits.flatten(2)
        for position in range(72):
            changed = codes(1)
            changed.view(-1)[position] = (
                changed.view(-1)[position] + int(torch.randint(1, 16, (), generator=generator))
            ) % 16
            reached[:, position] = (model(changed).logits.flatten(2) != before).any(dim=1)[0]
    assert torch.equal(reached, torch.ones(72, 72, dtype=torch.bool).tril(-1))


def test_the_probabilities_of_all_codes_add_up_to_one():
    model = model_of(num_embeddings=2, grid_height=1, grid_width=2).double()
    grids = torch.tensor([[number >> bit & 1 for bit in range(6)] for number in range(64)]).view(64, 1, 2, L)
    with torch.no_grad():
        output = model(grids)
    log_probabilities = output.logits.log_softmax(1).gather(1, grids[:, None]).flatten(1).sum(dim=1)
    torch.testing.assert_close(log_probabilities.exp().sum(), torch.tensor(1.0, dtype=torch.double))
    assert float(log_probabilities.exp().std()) > 1e-3
    torch.testing.assert_close(output.loss.double(), -log_probabilities.mean() / 6, rtol=1e-6, atol=0)


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
@pytest.mark.parametrize("given_rows", [0, 3])
def test_cached_logits_equal_uncached_ones(fields, given_rows):
    model = model_of(num_layers=3, **fields)
    indices, given = codes(5), labels(model, 5)
    logits = []
    with torch.no_grad(), row_wise_products(torch.device("cpu")):
        expected = model(indices, **given).logits[:, :, given_rows:]
        decoder = Decoder(model)
        decoder.start(5, 6, given.get("class_labels"), ())
        for row in range(given_rows):
            decoder.read_row(row, indices[:, row])
        for row in range(given_rows, 4):
            decoder.begin_row(row)
            for column in range(6):
                features = decoder.columns(column)[:, 0]
                logits += [decoder.logits(features, indices[:, row, column, :latent]) for latent in range(L)]
                decoder.write(indices[:, row, column : column + 1], column)
    assert 0.3 < float(expected.std()) < 20  # the comparison would see an error
    torch.testing.assert_close(torch.stack(logits, dim=2), expected.flatten(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
@pytest.mark.parametrize("arguments", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("rows", [0, 2])
def test_generate_equals_naive_sampling_with_the_same_uniforms(fields, arguments, rows):
    model = model_of(**fields)
    given, uniforms = labels(model, 5), candidate_uniforms(3, [0] * 5, range(5), 72)
    prefix = codes(5)[:, :rows] if rows else None
    expected = naive_generate(model, given, uniforms, prefix, **arguments)
    steps = []
    drawn = model.generate(
        5, seed=3, prefix_indices=prefix, **given, **arguments, callback=lambda step: steps.append(step.position)
    )
    assert torch.equal(drawn, expected)
    assert steps == list(range(rows * 6 * L, 72))
    one = {name: value[4:] for name, value in given.items()}
    alone = model.generate(
        1, uniforms=uniforms[4:], prefix_indices=None if prefix is None else prefix[4:], **one, **arguments
    )
    assert torch.equal(alone[0], drawn[4])


def test_one_code_at_a_position_is_the_network_it_was():
    names = set(tiny_pixelcnn().state_dict())
    assert "embedding.weight" in names and not any("latents" in name for name in names)


def test_saving_and_loading_is_bit_equal(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    loaded = PixelCNN.from_pretrained(tmp_path)
    assert loaded.config.latents_per_position == L
    assert torch.equal(loaded.eval()(codes(2)).logits, model(codes(2)).logits)


@pytest.mark.parametrize(
    "indices", [torch.zeros(2, 4, 6, dtype=torch.long), torch.zeros(2, 4, 6, 2, dtype=torch.long)], ids=str
)
def test_codes_of_another_shape_are_refused(indices):
    with pytest.raises(ValueError, match=r"indices must be of shape \(batch, rows, columns, 3\), got \(2, 4, 6"):
        model_of()(indices)
    with pytest.raises(ValueError, match=r"prefix_indices must be of shape \(n, 6, 3\)"):
        model_of().generate(2, prefix_indices=indices[:, :2])
