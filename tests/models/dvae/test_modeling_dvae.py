"""The discrete VAE: architecture, ELBO, codes, files."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from export_half import halve
from mosaics.likelihoods import logit_laplace_log_prob, map_pixels
from mosaics.models.dvae import DiscreteVAE, DiscreteVAEConfig, DiscreteVAEImageProcessor
from mosaics.models.dvae.layers import LogitHead
from testing_utils import tiny_dvae


def pixels(batch=2, size=16):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_default_architecture_has_openais_parameter_counts():
    with torch.device("meta"):
        dvae = DiscreteVAE(DiscreteVAEConfig())
    assert sum(p.numel() for p in dvae.encoder.parameters()) == 53_786_240
    assert sum(p.numel() for p in dvae.decoder.parameters()) == 43_829_766
    assert dvae.config.post_gain == 1 / 64
    assert dvae.config.grid_size == 32


def test_the_default_architecture_has_openais_layers():
    with torch.device("meta"):
        dvae = DiscreteVAE(DiscreteVAEConfig())
    block = dvae.encoder.groups[2][0]
    assert [tuple(c.weight.shape) for c in block.res_path] == [
        (256, 512, 3, 3),
        (256, 256, 3, 3),
        (256, 256, 3, 3),
        (1024, 256, 1, 1),
    ]
    assert tuple(block.id_path.weight.shape) == (1024, 512, 1, 1)
    assert [tuple(c.weight.shape[2:]) for c in dvae.decoder.groups[0][0].res_path] == [(1, 1), (3, 3), (3, 3), (3, 3)]
    assert tuple(dvae.encoder.input.weight.shape) == (256, 3, 7, 7)
    assert tuple(dvae.encoder.output.weight.shape) == (8192, 2048, 1, 1)
    assert tuple(dvae.decoder.quantizer.codebook.shape) == (8192, 128)
    assert tuple(dvae.decoder.output.weight.shape) == (6, 256, 1, 1)


def test_the_loss_is_the_negative_elbo_with_the_papers_normalisation():
    dvae = tiny_dvae().eval()
    x, beta = pixels(), 6.6
    output = dvae(x, kl_weight=beta)
    log_q = dvae.logits(x).log_softmax(1)
    kl_sum = (log_q.exp() * (log_q + math.log(dvae.config.num_embeddings))).sum((1, 2, 3))
    mean, log_scale = dvae.decoder(dvae.decoder.quantizer.lookup(output.indices)).chunk(2, 1)
    log_p = logit_laplace_log_prob(map_pixels(x), mean, log_scale).sum((1, 2, 3))
    expected = ((-log_p + beta * kl_sum) / x[0].numel()).mean()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.kl, (kl_sum / output.indices[0].numel()).mean())


def test_a_bounded_scale_bounds_the_density_of_flat_pictures():
    bounded, free = tiny_dvae(min_log_scale=-1.5).eval(), tiny_dvae().eval()
    for dvae in (bounded, free):
        with torch.no_grad():
            dvae.decoder.output.weight.zero_()
            dvae.decoder.output.bias[:3] = 0.0  # the mean of a mid-grey picture
            dvae.decoder.output.bias[3:] = -20.0
    grey = torch.full((1, 3, 16, 16), 0.5)
    at_the_peak = math.log(1 / (2 * math.exp(-1.5) * 0.25))
    assert bounded(grey).reconstruction_loss.item() == pytest.approx(-at_the_peak, abs=1e-3)
    assert free(grey).reconstruction_loss.item() < -19


def test_the_papers_kl_weight_per_position_is_beta_over_192():
    dvae = DiscreteVAE(
        DiscreteVAEConfig(image_size=32, num_embeddings=16, hidden_size=4, codebook_dim=4, blocks_per_group=1)
    ).eval()
    output = dvae(pixels(size=32), kl_weight=6.6)
    torch.testing.assert_close(output.loss - output.reconstruction_loss, 6.6 / 192 * output.kl)


def test_encode_is_the_argmax_and_decode_of_it_is_the_evaluation_reconstruction():
    dvae = tiny_dvae().eval()
    x = pixels()
    output = dvae(x)
    indices = dvae.encode(x)
    assert indices.dtype == torch.int64 and indices.shape == (2, dvae.config.grid_size, dvae.config.grid_size)
    torch.testing.assert_close(indices, dvae.logits(x).argmax(1))
    torch.testing.assert_close(dvae.decode(indices), output.reconstruction)
    assert output.reconstruction.min() >= 0 and output.reconstruction.max() <= 1


def test_training_moves_every_parameter():
    dvae = tiny_dvae().train()
    dvae(pixels(), gumbel_temperature=0.5, kl_weight=1.0).loss.backward()
    for name, parameter in dvae.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def identity_dvae(**fields):
    fields = {"num_groups": 1, "patch_size": 4, "codebook_dim": 64, "hidden_size": 64, "identity_start": True} | fields
    return tiny_dvae(**fields)


def test_with_an_identity_start_the_features_are_the_pixels_of_the_patch():
    features = identity_dvae().features(pixels())
    expected = torch.nn.functional.pixel_unshuffle(map_pixels(pixels()), 4)
    torch.testing.assert_close(features[:, :48], expected)


def test_with_an_identity_start_and_kmeans_codes_patches_that_are_codes_come_back():
    dvae = identity_dvae(num_embeddings=8).eval()
    x = pixels(2, 4).repeat(1, 1, 4, 4)  # two patches, so that eight centroids hold both
    dvae.initialize_codes(dvae.features(x), generator=torch.Generator().manual_seed(0))
    # The logit is decoded as the straight line through its ends, which is off by at most 0.08 in a pixel.
    assert (dvae.decode(dvae.encode(x)) - x).abs().max() < 0.1


def test_after_an_identity_start_every_parameter_learns():
    dvae = identity_dvae().train()
    optimizer = torch.optim.SGD(dvae.parameters(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in dvae.named_parameters()}
    for _ in range(2):  # zero ends of residual paths hide what is before them from the first step
        dvae(pixels(), kl_weight=1.0).loss.backward()
        optimizer.step()
    still = [name for name, parameter in dvae.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_a_few_steps_lower_the_loss_on_one_picture():
    dvae = tiny_dvae().train()
    optimizer = torch.optim.Adam(dvae.parameters(), lr=1e-2)
    x = pixels(1)
    before = dvae.eval()(x).loss.item()
    dvae.train()
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        dvae(x, gumbel_temperature=0.3).loss.backward()
        optimizer.step()
    assert dvae.eval()(x).loss.item() < before - 0.1


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_keep_pixels_where_they_are(patch_size):
    """Changing one cell of the code grid changes the picture only around that cell."""
    dvae = tiny_dvae(patch_size=patch_size, num_groups=1, image_size=32, blocks_per_group=1, stem_kernel_size=1).eval()
    indices = torch.zeros(1, 32 // patch_size, 32 // patch_size, dtype=torch.long)
    changed = indices.clone()
    changed[0, 3, 1] = 5
    difference = (dvae.decode(indices) - dvae.decode(changed)).abs().amax((0, 1))
    rows, columns = difference.nonzero().T
    reach = 3 * patch_size  # three 3x3 convolutions
    assert rows.min() >= 3 * patch_size - reach and rows.max() < 4 * patch_size + reach
    assert columns.min() >= 0 and columns.max() < 2 * patch_size + reach


def wide_dvae():
    """A dVAE whose codes are as wide as the encoder's features, which k-means needs."""
    return tiny_dvae(codebook_dim=64).eval()


def test_codes_that_start_as_kmeans_are_the_nearest_centroids_of_the_features():
    dvae, x = wide_dvae(), pixels(64)
    features = dvae.features(x)
    dvae.initialize_codes(features, generator=torch.Generator().manual_seed(0))
    vectors = features.permute(0, 2, 3, 1).flatten(end_dim=2)
    nearest = torch.cdist(vectors, dvae.decoder.quantizer.codebook).argmin(dim=1)
    assert torch.equal(dvae.encode(x).flatten(), nearest)
    assert nearest.unique().numel() == 32  # none is dead


def test_frequent_features_have_a_code_that_leads_and_others_keep_theirs():
    dvae, x = wide_dvae(), pixels(64)
    features = dvae.features(x)
    dvae.initialize_codes(features, sharpness=20.0, generator=torch.Generator().manual_seed(0))
    codebook = dvae.decoder.quantizer.codebook
    neighbour = (codebook - codebook[0]).norm(dim=1).topk(2, largest=False).indices[1]
    frequent = (codebook[:1] + codebook[neighbour, None]) / 2  # on the edge of two cells

    def leads():
        (logits,) = dvae.encoder.output(frequent[:, :, None, None])[:, :, 0, 0]
        (first, second), (code, _) = logits.topk(2)
        return (first - second).item(), code.item()

    (tight, code), before = leads(), dvae.encode(x)
    assert tight < 1e-3
    assert dvae.settle_codes(frequent, margin=0.5) >= 1
    wide, settled = leads()
    assert wide > 0.499 and settled == code
    assert (dvae.encode(x) == before).float().mean() > 0.95
    assert dvae.settle_codes(frequent, margin=0.49) == 0 == dvae.settle_codes(frequent[:0])


def test_splitting_brings_dead_codes_back_and_decodes_as_before():
    dvae, x = wide_dvae(), pixels(64)
    features = dvae.features(x)
    dvae.initialize_codes(features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dvae.encoder.output.bias[1:] -= 1e6
    assert dvae.encode(x).unique().numel() == 1
    before = dvae.decode(dvae.encode(x))
    assert dvae.split_codes(features, generator=torch.Generator().manual_seed(0)) == 1
    assert dvae.encode(x).unique().numel() == 2
    torch.testing.assert_close(dvae.decode(dvae.encode(x)), before)
    for round_number in range(5):
        dvae.split_codes(features, generator=torch.Generator().manual_seed(round_number))
    assert dvae.encode(x).unique().numel() > 24


def test_a_bypass_is_an_autoencoder_whose_every_parameter_has_a_gradient():
    dvae = wide_dvae().train()
    output = dvae(pixels(), bypass_codes=True)
    mean, _ = dvae.decoder(dvae.features(pixels())).chunk(2, dim=1)
    expected = ((mean.sigmoid() - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(output.reconstruction, expected)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in dvae.parameters())


def test_codes_of_another_width_than_the_features_cannot_start_from_them():
    dvae = tiny_dvae(codebook_dim=8)
    with pytest.raises(ValueError, match="codebook_dim is 8"):
        dvae.initialize_codes(dvae.features(pixels()))


def test_saved_and_loaded_models_agree_bit_for_bit(tmp_path):
    dvae = tiny_dvae().eval()
    dvae.save_pretrained(tmp_path)
    loaded = DiscreteVAE.from_pretrained(tmp_path).eval()
    for (name, a), (_, b) in zip(dvae.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(dvae(pixels()).reconstruction, loaded(pixels()).reconstruction)


def test_bfloat16_training_is_finite():
    dvae = tiny_dvae().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = dvae(pixels() * 0 + 1, gumbel_temperature=1 / 16, kl_weight=6.6)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(p.grad).all() for p in dvae.parameters())


def test_the_logits_are_those_of_float32_under_autocast():
    head = LogitHead(48, 200, 1)
    torch.nn.init.normal_(head.weight, std=200.0)
    features = torch.rand(2, 48, 8, 8)
    expected = F.conv2d(features, head.weight, head.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features), expected)


def test_half_precision_on_disk_keeps_the_codes(tmp_path):
    dvae = tiny_dvae(identity_start=True, patch_size=2, num_groups=1, codebook_dim=16, hidden_size=16).eval()
    pictures = torch.rand(16, 3, 16, 16)
    dvae.initialize_codes(dvae.features(pictures), sharpness=20.0, generator=torch.Generator().manual_seed(0))
    expected = dvae.encode(pictures)
    halve(dvae)
    dvae.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.float16):
        loaded = DiscreteVAE.from_pretrained(tmp_path, dtype=dtype).eval()
        assert loaded.encoder.output.weight.dtype == torch.float32
    loaded = DiscreteVAE.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert (loaded.encode(pictures) == expected).float().mean() > 0.995


def test_given_codes_are_decoded_and_leave_the_encoder_alone():
    dvae = tiny_dvae().train()
    indices = dvae.encode(pixels())
    output = dvae(pixels(), indices=indices)
    assert torch.equal(output.indices, indices) and output.kl == pytest.approx(math.log(32))
    torch.testing.assert_close(output.reconstruction, dvae.decode(indices))
    torch.testing.assert_close(output.reconstruction_loss, dvae.eval()(pixels()).reconstruction_loss)
    output.loss.backward()
    assert all(parameter.grad is None for parameter in dvae.encoder.parameters())
    assert dvae.decoder.quantizer.codebook.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": torch.zeros(2, 2, 4, dtype=torch.long)}, r"\(2, 4, 4\)"),
        ({"indices": torch.full((2, 4, 4), 32)}, r"\[0, 32\)"),
        ({"indices": torch.zeros(2, 4, 4, dtype=torch.long), "bypass_codes": True}, "not both"),
    ],
)
def test_wrong_given_codes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_dvae()(pixels(), **arguments)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 4, 16, 16), "shape"),
        (torch.zeros(3, 16, 16), "shape"),
        (torch.zeros(2, 3, 16, 18), "multiples of 4"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "floating point"),
        (torch.zeros(0, 3, 16, 16), "positive multiples"),
        (torch.full((2, 3, 16, 16), 255.0), r"\[0, 1\], got values from 255"),
    ],
)
def test_wrong_pixels_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_dvae()(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 4, 4), 32), r"\[0, 32\)"),
        (torch.full((1, 4, 4), -1), r"\[0, 32\)"),
        (torch.zeros(1, 4, 4), "integers"),
        (torch.zeros(4, 4, dtype=torch.long), "shape"),
        (torch.zeros(0, 4, 4, dtype=torch.long), "none of them 0"),
    ],
)
def test_wrong_indices_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_dvae().decode(bad)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": 20},
        {"num_embeddings": 1},
        {"num_groups": 0},
        {"hidden_size": 6},
        {"stem_kernel_size": 2},
        {"pixel_epsilon": 0.5},
        {"identity_start": True, "codebook_dim": 2},
    ],
)
def test_impossible_configurations_are_refused(fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        DiscreteVAEConfig(**fields)


def test_the_image_processor_resizes_crops_and_composites_on_white(tmp_path):
    processor = DiscreteVAEImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    values = processor(picture, return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 3, 16, 16)
    assert torch.equal(values, torch.ones_like(values))
    gradient = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (16, 1)))
    values = processor(gradient, return_tensors="pt")["pixel_values"]
    expected = torch.from_numpy(np.asarray(gradient)[:, 8:24] / 255).float()
    torch.testing.assert_close(values[0], expected.expand(3, 16, 16), atol=1e-6, rtol=0)
    processor.save_pretrained(tmp_path)
    assert DiscreteVAEImageProcessor.from_pretrained(tmp_path).crop_size == processor.crop_size
