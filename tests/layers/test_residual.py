import torch
import torch.nn.functional as F

from mosaics.layers import ResidualBlock


def test_the_skip_adds_the_input_itself_and_not_its_relu():
    torch.manual_seed(0)
    block = ResidualBlock(4, 6)
    features = torch.randn(2, 4, 5, 3)
    before = features.clone()
    output = block(features)
    inner = F.conv2d(F.relu(before), block.conv3x3.weight, block.conv3x3.bias, padding=1)
    expected = before + F.conv2d(F.relu(inner), block.conv1x1.weight, block.conv1x1.bias)
    torch.testing.assert_close(output, expected)
    assert torch.equal(features, before)  # nothing in place


def test_dropout_acts_in_training_only():
    block, features = ResidualBlock(4, 6, dropout=0.5), torch.randn(1, 4, 5, 5)
    assert not torch.equal(block(features), block(features))
    block.eval()
    assert torch.equal(block(features), block(features))
