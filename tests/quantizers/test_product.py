import pytest
import torch

from mosaics.quantizers import EMAVectorQuantizer, ProductQuantizer, VectorQuantizer


def test_each_part_is_quantized_by_its_own_codebook():
    torch.manual_seed(0)
    product = ProductQuantizer(lambda: VectorQuantizer(5, 3), 4)
    for part in product.parts:
        torch.nn.init.normal_(part.codebook)
    features = torch.randn(2, 3, 6, 7, 4, requires_grad=True)
    output = product(features)
    assert output.quantized.shape == features.shape and output.indices.shape == (2, 6, 7, 4)
    for place, part in enumerate(product.parts):
        alone = part(features[..., place])
        assert torch.equal(output.indices[..., place], alone.indices)
        torch.testing.assert_close(output.quantized[..., place], alone.quantized)
    losses = [part(features[..., place]).commitment_loss for place, part in enumerate(product.parts)]
    torch.testing.assert_close(output.commitment_loss, torch.stack(losses).mean())
    assert torch.equal(product.encode(features.detach()), output.indices)
    torch.testing.assert_close(product.lookup(output.indices), output.quantized.detach())
    output.quantized.sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))  # straight through


def test_a_wrong_number_of_parts_is_refused():
    product = ProductQuantizer(lambda: VectorQuantizer(5, 3), 4)
    with pytest.raises(ValueError, match="4 parts, the last axis of the input has 2"):
        product(torch.randn(1, 3, 2, 2, 2))
    with pytest.raises(ValueError, match="num_parts"):
        ProductQuantizer(lambda: VectorQuantizer(5, 3), 0)


def test_averages_go_on_from_given_centroids_at_the_full_decay():
    quantizer = EMAVectorQuantizer(2, 1, decay=0.9, epsilon=0, revival_threshold=0)
    quantizer.start_at(torch.tensor([[0.0], [10.0]]), torch.tensor([2, 2]))
    quantizer(torch.tensor([[1.0], [1.0]]))
    # N = 0.9 * 2 + 0.1 * 2, m = 0.9 * 0 + 0.1 * 2: the first code goes a tenth of the way
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[0.1], [10.0]]))
