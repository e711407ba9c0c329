import math

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassClassValidationError

from mosaics import VQVAE, VQVAEConfig
from mosaics.likelihoods import discretized_logistic_mixture_log_prob, logistic_mixture_of_residuals
from mosaics.models.codebook_identity import codebook_id
from mosaics.models.vqvae.principal_start import PrincipalComponents, balanced_groups, cells_of, water_filling


def smooth_pictures(count: int, size: int = 16, channels: int = 3) -> torch.Tensor:
    """Noise that is alike in neighbouring pixels and channels, as in pictures."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, channels, size // 4 + 1, size // 4 + 1, generator=generator)
    mixed = 0.7 * noise.mean(dim=1, keepdim=True) + 0.3 * noise
    return F.interpolate(mixed, size=(size, size), mode="bicubic").clamp(0, 1)


def config(**fields) -> VQVAEConfig:
    sizes = {"image_size": 16, "num_embeddings": 64, "hidden_size": 96, "residual_hidden_size": 8, "embedding_dim": 16}
    return VQVAEConfig(**{**sizes, "quantizer": "ema", "latents_per_position": 4, "separate_codebooks": True} | fields)


def test_bits_are_those_of_reverse_water_filling():
    variances = torch.tensor([16.0, 4.0, 1.0, 1e-9])
    bits = water_filling(variances, 6.0)
    assert bits.sum().item() == pytest.approx(6, abs=1e-6)
    assert bits[3] == 0
    distortions = variances[:3].double() / 4 ** bits[:3]
    torch.testing.assert_close(distortions, distortions.mean().expand(3))  # equal where bits are spent
    assert water_filling(torch.tensor([1.0, 1.0, 0.0]), 4.0).tolist() == pytest.approx([2, 2, 0], abs=1e-6)


def test_components_are_dealt_out_evenly_and_within_the_room():
    groups = balanced_groups(torch.tensor([5.0, 3.0, 2.0, 1.0, 0.0, 0.0]), 2, max_size=3)
    assert groups == [[0, 3, 5], [1, 2, 4]] or sorted(map(sorted, groups)) == [[0, 3, 5], [1, 2, 4]]
    assert balanced_groups(torch.tensor([5.0, 3.0, 2.0]), 1, max_size=2) == [[0, 1]]


def test_cells_are_the_pixels_of_a_position():
    picture = torch.arange(64.0).view(1, 1, 8, 8)
    cells = cells_of(picture, 2)
    assert cells.shape == (1, 16, 2, 2)
    assert sorted(cells[0, :, 1, 0].tolist()) == sorted(picture[0, 0, 4:, :4].flatten().tolist())


def test_components_decorrelate_cells_about_the_mean_colour():
    cells = cells_of(smooth_pictures(40), 2).movedim(1, -1).flatten(0, 2)
    components = PrincipalComponents(cells, 3)
    scores = (cells.double() - components.mean) @ components.axes
    covariance = scores.T @ scores / len(cells)
    torch.testing.assert_close(covariance, torch.diag(components.variances), atol=1e-9, rtol=0)
    assert (components.variances.diff() <= 0).all()
    assert len(components.mean.unique()) == 3


@pytest.mark.parametrize("downsamples", [1, 2])
@pytest.mark.parametrize("likelihood", ["gaussian", "logistic_mixture"])
def test_the_network_is_the_transform_code(downsamples, likelihood):
    torch.manual_seed(0)
    pictures = smooth_pictures(120)
    model = VQVAE(config(num_downsamples=downsamples, likelihood=likelihood, num_mixtures=3)).eval()
    model.initialize_from(pictures)
    with torch.no_grad():
        output = model(pictures)
    cells = cells_of(2 * pictures - 1, downsamples)
    components = PrincipalComponents(cells.movedim(1, -1).flatten(0, 2), 3)
    bits = water_filling(components.variances, 4 * math.log2(64))
    groups = balanced_groups(bits, 4, 16)
    used = [index for group in groups for index in group]
    scale = (4 * 16 / components.variances[used].sum()).sqrt()  # features of mean square 1
    rows = cells.movedim(1, -1).flatten(0, 2).double() - components.mean
    decoded = components.mean.expand_as(rows).clone()
    for group, part, codes in zip(groups, model.quantizer.parts, output.indices.unbind(-1), strict=True):
        axes = components.axes[:, group]
        entries = part.codebook[:, : len(group)].double() / scale
        nearest = torch.cdist(rows @ axes, entries).argmin(dim=1)
        assert (nearest == codes.flatten()).double().mean() > 0.999
        decoded += entries[codes.flatten()] @ axes.T
    expected = decoded.float().view(*cells.movedim(1, -1).shape).movedim(-1, 1)
    for _ in range(downsamples):
        expected = F.pixel_shuffle(expected, 2)
    torch.testing.assert_close(output.reconstruction, ((expected + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0)


def test_it_is_far_better_than_a_random_start_and_learns_on():
    torch.manual_seed(0)
    pictures = smooth_pictures(200)
    model = VQVAE(config(likelihood="logistic_mixture")).train()
    random = model(pictures).bits_per_dim.item()
    model.initialize_from(pictures)
    first = model(pictures)
    assert first.bits_per_dim < random - 1
    assert first.codebook_usage > 0.9
    model.quantizer.eval()
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=3e-4)
    for _ in range(20):
        output = model(pictures)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.bits_per_dim < first.bits_per_dim - 0.05
    assert all((block.conv1x1.weight != 0).any() for block in model.decoder.blocks)  # silent, not dead


def test_one_code_of_a_position_starts_as_k_means_of_the_cells():
    model = VQVAE(config(latents_per_position=1, separate_codebooks=False, embedding_dim=48, quantizer="vector"))
    pictures = smooth_pictures(60)
    model.initialize_from(pictures)
    error = (model.eval()(pictures).reconstruction - pictures).square().mean()
    assert error < 0.3 * pictures.var()


def test_what_does_not_fit_is_refused():
    pictures = smooth_pictures(4)
    with pytest.raises(ValueError, match="hidden_size of at least 96, got 64"):
        VQVAE(config(hidden_size=64)).initialize_from(pictures)
    with pytest.raises(ValueError, match="separate_codebooks"):
        VQVAE(config(separate_codebooks=False)).initialize_from(pictures)
    with pytest.raises(ValueError, match="normalized"):
        VQVAE(config(quantizer="normalized")).initialize_from(pictures)
    with pytest.raises(ValueError, match="pixel_values of one colour"):
        VQVAE(config()).initialize_from(torch.full((4, 3, 16, 16), 0.5))
    with pytest.raises(ValueError, match="at least 64 vectors"):
        VQVAE(config()).initialize_from(pictures[:1])
    with pytest.raises(StrictDataclassClassValidationError, match="separate_codebooks needs latents_per_position"):
        config(latents_per_position=1)


def test_the_mixture_of_residuals_is_the_right_one():
    torch.manual_seed(0)
    prediction = torch.rand(1, 3, 64, 64) * 0.8 - 0.4
    shared = 0.05 * torch.randn(1, 1, 64, 64)
    residual = shared + 0.01 * torch.randn(1, 3, 64, 64)
    pixels = (prediction + residual + 1) / 2
    mean = torch.tensor([0.1, 0.0, -0.1])
    less_mean = (prediction - mean[:, None, None]).movedim(1, -1).flatten(0, 2)
    flat = residual.movedim(1, -1).flatten(0, 2)

    def nats(residuals):
        matrix, bias = logistic_mixture_of_residuals(mean, residuals, 5)
        parameters = (less_mean @ matrix.T + bias).view(1, 64, 64, -1).movedim(-1, 1)
        return -discretized_logistic_mixture_log_prob(pixels, parameters, 5).mean()

    # Gaussian channels that share 0.05: h = 1/2 ln det(2 pi e S) less what 8-bit rounding to steps of 2/255 takes
    covariance = 0.05**2 * torch.ones(3, 3) + 0.01**2 * torch.eye(3)
    bound = 0.5 * torch.logdet(2 * math.pi * math.e * covariance) - 3 * math.log(2 / 255)
    assert bound < nats(flat) < bound + 1.2  # the components share their scales unevenly
    assert nats(flat) < nats(flat * torch.tensor([1.0, -1.0, 1.0])) - 2  # the regression matters


def test_the_identity_is_of_all_codebooks_together(tmp_path):
    model = VQVAE(config())
    model.initialize_from(smooth_pictures(30))
    model.save_pretrained(tmp_path)
    again = VQVAE.from_pretrained(tmp_path)
    assert codebook_id(model) == codebook_id(again)
    again.quantizer.parts[2].codebook.neg_()
    assert codebook_id(model) != codebook_id(again)
    pictures = smooth_pictures(3)
    codes = model.eval().encode(pictures)
    assert codes.shape == (3, 4, 4, 4)
    torch.testing.assert_close(model.decode(codes), model(pictures).reconstruction, atol=1e-5, rtol=0)
