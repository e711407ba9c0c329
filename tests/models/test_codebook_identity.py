"""A codebook's name: the same in every precision, another for other codes; also without a codebook."""

import pytest
import torch

from mosaics import VQVAE, VQVAE2, VQVAE2Config, VQVAEConfig
from mosaics.models.codebook_identity import codebook_id, level_codebook_ids

SIZES = {"image_size": 16, "hidden_size": 8, "residual_hidden_size": 4}
QUANTIZERS = {
    "vector": {"num_embeddings": 12, "embedding_dim": 4},
    "fsq": {"num_embeddings": 12, "embedding_dim": 2, "fsq_levels": [4, 3]},
}


def vqvae(quantizer, seed=0):
    torch.manual_seed(seed)
    return VQVAE(VQVAEConfig(quantizer=quantizer, **QUANTIZERS[quantizer], **SIZES))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_the_name_survives_half_precision_and_tells_codebooks_apart(quantizer):
    name = codebook_id(vqvae(quantizer))
    assert name.startswith(f"12x{QUANTIZERS[quantizer]['embedding_dim']}-")
    assert codebook_id(vqvae(quantizer).half()) == name == codebook_id(vqvae(quantizer).bfloat16())
    assert codebook_id(vqvae(quantizer, seed=1)) != name


def test_of_several_codebooks_each_has_a_name_and_all_together_have_none():
    model = VQVAE2(VQVAE2Config(**SIZES, num_embeddings=12, embedding_dim=4))
    names = level_codebook_ids(model)
    assert len(names) == 2
    with pytest.raises(ValueError, match="VQVAE2, found 2"):
        codebook_id(model)
    with pytest.raises(ValueError, match="Linear, found 0"):
        codebook_id(torch.nn.Linear(2, 2))
