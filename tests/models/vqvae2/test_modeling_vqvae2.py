"""The VQ-VAE-2: the paper's recursion for two and three levels, codes, files, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from mosaics import VQVAE2, VQVAE2Config

LEVELS = [2, 3]


def tiny_vqvae2(num_levels=2, **fields) -> VQVAE2:
    """A VQ-VAE-2 of 32x32 pictures and a bottom grid of 8x8, its codes spread out."""
    defaults = {"image_size": 32, "num_embeddings": 24, "embedding_dim": 4, "hidden_size": 12}
    torch.manual_seed(0)
    fields = defaults | {"num_residual_layers": 1, "residual_hidden_size": 6, "num_levels": num_levels} | fields
    model = VQVAE2(VQVAE2Config(**fields))
    for level in model.levels:
        level.quantizer.codebook.normal_(generator=torch.Generator().manual_seed(1))
    return model


def pixels(batch=2, size=32, seed=0):
    values = torch.randint(256, (batch, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return values / 255


def test_the_default_is_the_papers_imagenet_set_up():
    with torch.device("meta"):
        vqvae = VQVAE2(VQVAE2Config())
    assert vqvae.config.grid_sizes == (32, 64) and vqvae.config.downsample_factor == 8
    bottom, top = vqvae.levels
    assert [tuple(layer.weight.shape) for layer in bottom.encoder.downsamples] == [(64, 3, 4, 4), (128, 64, 4, 4)]
    assert len(top.encoder.downsamples) == len(top.decoder.upsamples) == 1 and len(top.decoder.blocks) == 2
    assert tuple(top.encoder.blocks[0].conv3x3.weight.shape) == (64, 128, 3, 3)
    assert tuple(bottom.to_codes.weight.shape) == (64, 128 + 64, 1, 1)
    assert bottom.decoder.input.in_channels == 128 and top.decoder.input.in_channels == 64
    assert all(tuple(level.quantizer.codebook.shape) == (512, 64) for level in vqvae.levels)


def test_the_strided_convolutions_above_the_bottom_can_be_narrower():
    vqvae = tiny_vqvae2(num_levels=3, upper_downsample_size=5)
    for level in vqvae.levels[1:]:
        assert tuple(level.encoder.downsamples[0].weight.shape) == (5, 12, 4, 4)
        assert tuple(level.encoder.input.weight.shape) == (12, 5, 3, 3)
    assert vqvae.levels[0].encoder.input.in_channels == 12
    with torch.no_grad():
        assert [tuple(grid.shape) for grid in vqvae.eval().encode(pixels())] == [(2, 2, 2), (2, 4, 4), (2, 8, 8)]


def test_the_papers_set_up_for_faces_has_grids_of_32_64_and_128():
    config = VQVAE2Config(image_size=1024, num_levels=3, bottom_downsamples=3)
    assert config.grid_sizes == (32, 64, 128)


@pytest.mark.parametrize("num_levels", LEVELS)
def test_the_loss_is_eq_2_and_every_term_is_reported(num_levels):
    vqvae, x = tiny_vqvae2(num_levels, commitment_cost=0.7).eval(), pixels()
    output = vqvae(x)
    commitment, codes, from_above = 0.0, None, None
    features, hidden = [], 2 * x - 1
    for level in vqvae.levels:
        hidden = level.encoder(hidden)
        features.append(hidden)
    for number in reversed(range(num_levels)):
        level = vqvae.levels[number]
        joined = features[number] if from_above is None else torch.cat([features[number], from_above], 1)
        z = level.to_codes(joined)
        rows = z.movedim(1, -1)
        nearest = (rows[..., None, :] - level.quantizer.codebook).square().sum(-1).argmin(-1)
        assert torch.equal(output.indices[num_levels - 1 - number], nearest)
        e = level.quantizer.codebook[nearest].movedim(-1, 1)
        commitment = commitment + (z - e).square().mean()
        codes = e if codes is None else torch.cat([level.upsample(codes), e], 1)
        from_above = level.decoder(codes)
    mse = F.mse_loss(from_above, 2 * x - 1)
    torch.testing.assert_close(output.reconstruction_loss, mse)
    torch.testing.assert_close(output.commitment_loss, commitment)
    torch.testing.assert_close(output.loss, mse + 0.7 * commitment)
    for indices, perplexity, usage in zip(output.indices, output.perplexity, output.codebook_usage, strict=True):
        frequencies = torch.bincount(indices.flatten(), minlength=24) / indices.numel()
        torch.testing.assert_close(perplexity, torch.exp(-torch.xlogy(frequencies, frequencies).sum()))
        torch.testing.assert_close(usage, (frequencies > 0).float().mean())


@pytest.mark.parametrize("num_levels", LEVELS)
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_encode_and_decode_are_the_two_halves_of_the_forward_pass(num_levels, size):
    vqvae = tiny_vqvae2(num_levels).eval()
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    output, indices = vqvae(x), vqvae.encode(x)
    assert isinstance(indices, tuple)
    for level, grid in enumerate(reversed(indices)):  # from the bottom
        assert grid.shape == (2, size[0] // 4 // 2**level, size[1] // 4 // 2**level) and grid.dtype == torch.int64
    assert all(torch.equal(a, b) for a, b in zip(indices, output.indices, strict=True))
    assert torch.equal(vqvae.decode(indices), output.reconstruction)
    assert output.reconstruction.shape == x.shape
    assert torch.equal(vqvae(x, return_dict=False)[0], output.loss)


def test_every_level_changes_the_picture_and_the_top_reaches_furthest():
    vqvae = tiny_vqvae2(3, num_residual_layers=0, image_size=64).eval()
    grids = [torch.zeros(1, size, size, dtype=torch.long) for size in vqvae.config.grid_sizes]
    reach = []
    for level in range(3):
        changed = [grid.clone() for grid in grids]
        changed[level][0, -1, -1] = 5
        rows = (vqvae.decode(tuple(grids)) - vqvae.decode(changed)).abs().amax((0, 1)).nonzero()[:, 0]
        reach.append(64 - int(rows.min()))
    assert reach[0] > reach[1] > reach[2] >= 4


def test_bottom_codes_depend_on_the_codes_above_them():
    vqvae, x = tiny_vqvae2().eval(), pixels()
    before = vqvae.encode(x)
    vqvae.levels[1].quantizer.codebook.mul_(-1)
    after = vqvae.encode(x)
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("num_levels", LEVELS)
@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_training_moves_every_parameter_and_every_codebook(num_levels, estimator):
    vqvae = tiny_vqvae2(num_levels, gradient_estimator=estimator).train()
    before = [level.quantizer.codebook.clone() for level in vqvae.levels]
    vqvae(pixels()).loss.backward()
    for name, parameter in vqvae.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    for level, codebook in zip(vqvae.levels, before, strict=True):
        assert not torch.equal(level.quantizer.codebook, codebook) and level.quantizer.num_updates == 1


def test_beta_moves_what_is_quantised_and_not_the_last_decoder():
    vqvae = tiny_vqvae2()
    vqvae(pixels()).commitment_loss.backward()
    bottom = vqvae.levels[0]
    assert all(parameter.grad is None for parameter in bottom.decoder.parameters())
    assert bottom.encoder.input.weight.grad.abs().max() > 0 and bottom.to_codes.weight.grad.abs().max() > 0


def test_a_few_steps_lower_the_loss_and_keep_codes_in_use():
    vqvae = tiny_vqvae2(ema_decay=0.8).train()  # codes keep up with a fast optimizer
    optimizer = torch.optim.Adam(vqvae.parameters(), lr=3e-3)
    x = F.interpolate(pixels(2, 4), scale_factor=8)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        output = vqvae(x)
        output.loss.backward()
        optimizer.step()
        losses.append(output.reconstruction_loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert min(output.codebook_usage) > 0.3


@pytest.mark.parametrize("num_levels", LEVELS)
def test_saved_and_loaded_models_agree_bit_for_bit(num_levels, tmp_path):
    vqvae = tiny_vqvae2(num_levels).train()
    vqvae(pixels())
    vqvae.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, VQVAE2)
    state = vqvae.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(vqvae(pixels()).reconstruction, loaded(pixels()).reconstruction)
    for model in (vqvae, loaded):
        model.train()(pixels(seed=1))
    assert all(torch.equal(a, b) for a, b in zip(vqvae.buffers(), loaded.buffers(), strict=True))


def test_bfloat16_training_is_finite_and_half_precision_weights_decode():
    vqvae = tiny_vqvae2(3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = vqvae(pixels())
    output.loss.backward()
    assert output.loss.isfinite() and all(parameter.grad.isfinite().all() for parameter in vqvae.parameters())
    vqvae = vqvae.eval().bfloat16()
    assert vqvae.decode(vqvae.encode(pixels())).isfinite().all()


def test_nan_pixels_reach_the_loss_in_training_change_no_codebook_and_are_refused_otherwise():
    vqvae, x = tiny_vqvae2().train(), pixels()
    vqvae(x)
    before = {name: buffer.clone() for name, buffer in vqvae.named_buffers()}
    x[0, 0, 0, 0] = torch.nan
    assert vqvae(x).loss.isnan()
    assert all(torch.equal(buffer, before[name]) for name, buffer in vqvae.named_buffers())
    for call in (vqvae.eval(), vqvae.encode):
        with pytest.raises(ValueError, match="finite"):
            call(x)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 1, 32, 32), "shape"),
        (torch.zeros(2, 3, 32, 36), "multiples of 8"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "floating point"),
        (torch.full((2, 3, 32, 32), 1.5), r"\[0, 1\]"),
    ],
)
def test_wrong_pixels_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_vqvae2().eval()(bad)


def grids(top=(1, 4, 4), bottom=(1, 8, 8), top_value=0, bottom_value=0):
    return torch.full(top, top_value), torch.full(bottom, bottom_value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (grids()[0], "tuple of 2 grids of codes, top first, got Tensor"),
        (grids()[:1], "got 1 grids"),
        (grids()[::-1], r"indices\[1\] must be integers of shape \(1, 16, 16\)"),
        (grids(bottom=(2, 8, 8)), r"indices\[1\]"),
        (grids(top=(4, 4)), r"indices\[0\]"),
        (grids(top_value=24), r"indices\[0\] must lie in \[0, 24\)"),
        (grids(bottom_value=-1), r"indices\[1\] must lie in"),
    ],
)
def test_wrong_grids_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_vqvae2().decode(bad)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": 20},
        {"num_levels": 1},
        {"upper_downsample_size": 0},
        {"bottom_downsamples": 0},
        {"num_embeddings": 1},
        {"commitment_cost": -0.1},
        {"ema_decay": 1.0},
        {"gradient_estimator": "none"},
    ],
)
def test_impossible_configurations_are_refused(fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        VQVAE2Config(**fields)
