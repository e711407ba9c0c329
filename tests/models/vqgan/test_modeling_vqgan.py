import subprocess
import sys

import pytest
import torch

from mosaics.models.codebook_identity import codebook_id
from mosaics.models.vqgan import VQGAN, VQGANConfig

QUANTIZERS = ("vector", "gumbel", "normalized")


def vqgan(**fields) -> VQGAN:
    """16x16 pixels to 8x8 codes."""
    defaults = {"image_size": 16, "num_embeddings": 24, "embedding_dim": 4, "latent_channels": 6, "hidden_size": 32}
    torch.manual_seed(0)
    model = VQGAN(
        VQGANConfig(**(defaults | {"channel_multipliers": [1, 2], "num_residual_layers": 1} | fields))
    ).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("codebook"):
            tensor.normal_()
    return model


def pictures(batch: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_it_is_an_image_tokenizer(quantizer):
    model = vqgan(quantizer=quantizer)
    with torch.no_grad():
        indices = model.encode(pictures())
        pixels = model.decode(indices)
        output = model(pictures())
        as_tuple = model(pictures(), return_dict=False)
    assert indices.shape == (2, 8, 8) and indices.dtype == torch.long and len(indices.unique()) > 4
    assert pixels.shape == (2, 3, 16, 16) and 0 <= pixels.min() < pixels.max() <= 1
    assert torch.equal(output.indices, indices) and torch.equal(output.reconstruction, pixels)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], pixels) and torch.equal(as_tuple[1], indices)
    assert model.config.grid_size == 8 and codebook_id(model).startswith("24x4-")


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_saved_and_loaded_models_agree_bit_for_bit(quantizer, tmp_path):
    model = vqgan(quantizer=quantizer)
    model.save_pretrained(tmp_path)
    loaded = VQGAN.from_pretrained(tmp_path)
    for field in ("channel_multipliers", "attention_levels", "quantizer"):
        assert getattr(loaded.config, field) == getattr(model.config, field)
    with torch.no_grad():
        indices = model.encode(pictures())
        assert torch.equal(loaded.encode(pictures()), indices)
        assert torch.equal(loaded.decode(indices), model.decode(indices))


def test_a_fresh_process_loads_it_though_diffusers_is_imported_on_the_way(tmp_path):
    model = vqgan()
    model.save_pretrained(tmp_path)
    program = (
        "import sys, torch; from mosaics.models.vqgan import VQGAN; assert 'diffusers' not in sys.modules; "
        f"model = VQGAN.from_pretrained({str(tmp_path)!r}); "
        "print(model.decode(torch.zeros(1, 8, 8, dtype=torch.long)).double().sum().item())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with torch.no_grad():
        expected = model.decode(torch.zeros(1, 8, 8, dtype=torch.long)).double().sum().item()
    assert float(result.stdout) == pytest.approx(expected, rel=1e-6)


def test_diffusers_model_computes_the_same():
    model = vqgan(attention_levels=[0, 1])
    autoencoder = model.to_diffusers()
    with torch.no_grad():
        latents = autoencoder.encode(2 * pictures() - 1).latents
        _, _, (_, _, indices) = autoencoder.quantize(latents)
        decoded = autoencoder.decode(latents).sample
        assert torch.equal(indices.view(2, 8, 8), model.encode(pictures()))
        expected = model(pictures()).reconstruction
    torch.testing.assert_close((decoded.clamp(-1, 1) + 1) / 2, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="quantizer='gumbel'"):
        vqgan(quantizer="gumbel").to_diffusers()


def test_the_default_is_the_published_model_of_16384_codes():
    config = VQGANConfig()
    assert (config.downsample_factor, config.grid_size, config.widths) == (16, 16, (128, 128, 256, 256, 512))
    with torch.device("meta"):
        model = VQGAN(config)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == 76_073_859
    assert config.channel_multipliers == [1, 1, 2, 2, 4] and config.attention_levels == [4]
    assert VQGANConfig(channel_multipliers=[1, 2, 4]).has_attention == (False, False, True)
    assert VQGANConfig(attention_levels=[0, 2]).has_attention == (True, False, True, False, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 40}, "divisible by norm_groups = 32"),
        ({"image_size": 15}, "image_size must be divisible by"),
        ({"channel_multipliers": []}, "channel_multipliers must be positive"),
        ({"attention_levels": [2], "channel_multipliers": [1, 2]}, "attention_levels must be resolutions from 0 to 1"),
        ({"quantizer": "fsq"}, "quantizer must be one of vector, gumbel, normalized, got 'fsq'"),
        ({"num_embeddings": 1}, "num_embeddings must be at least 2"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(Exception, match=message):
        VQGANConfig(**fields)


def test_wrong_pixels_and_codes_are_refused():
    model = vqgan()
    with pytest.raises(ValueError, match=r"must be finite and lie in \[0, 1\]"):
        model.encode(pictures() * 2)
    with pytest.raises(ValueError, match="positive multiples of 2"):
        model.encode(pictures(size=15))
    with pytest.raises(ValueError, match=r"lie in \[0, 24\)"):
        model.decode(torch.full((1, 8, 8), 24))
