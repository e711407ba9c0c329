"""From labelled pictures through a VQ-VAE-2 and the priors of its two levels to pictures of a class."""

import json

import numpy as np
import pytest

from example_scripts import run_script
from mosaics import VQVAE2, PixelCNN, VQVAEPipeline
from mosaics.data import CodesDataset
from mosaics.data.benchmark_sets import DIGITS
from mosaics.models.codebook_identity import level_codebook_ids

VQVAE = {"num_channels": 1, "bottom_downsamples": 1, "num_embeddings": 16, "embedding_dim": 4, "hidden_size": 8}
VQVAE |= {"num_residual_layers": 1, "residual_hidden_size": 4}
PIXELCNN = {"hidden_size": 8, "num_layers": 2, "first_kernel_size": 3, "kernel_size": 3, "num_conditioning_blocks": 1}


def write_digits(folder, count=24):
    """A set of the published form whose "digits" are bright bars, the n-th at the height of n."""
    folder.mkdir()
    labels = np.arange(count, dtype=np.uint8) % 10
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 6, 4:24] = 255
    for split in ("train", "t10k"):
        for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / name).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return folder


def training(output_dir):
    return [
        *("--output_dir", str(output_dir), "--max_steps", "2", "--train_batch_size", "4", "--cpu", "true"),
        *("--num_eval_samples", "4", "--eval_steps", "2", "--progress_bar", "false"),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, a VQ-VAE-2, its codes and the priors of both levels."""
    folder = tmp_path_factory.mktemp("hierarchy")
    source = json.dumps({"source": str(write_digits(folder / "digits"))})
    data = ["--dataset", "mnist", "--dataset_options", source]
    run_script(
        "train_vqvae2.py",
        *data,
        *("--image_size", "28", "--model", json.dumps(VQVAE)),
        *training(folder / "vqvae"),
    )
    run_script(
        "encode_codes.py",
        *("--recipe", "none", *data, "--vqvae", str(folder / "vqvae"), "--output_dir", str(folder / "codes")),
        *("--shard_size", "10"),
    )
    for level in ("1", "2"):
        run_script(
            "train_pixelcnn.py",
            *("--codes", str(folder / "codes"), "--level", level, "--vqvae", str(folder / "vqvae")),
            *("--model", json.dumps(PIXELCNN)),
            *training(folder / f"prior-{level}"),
        )
    return folder


def test_the_codes_are_those_of_both_levels_with_the_classes(folder):
    codes, vqvae = CodesDataset(folder / "codes"), VQVAE2.from_pretrained(folder / "vqvae").eval()
    assert codes.description.codebook_ids == level_codebook_ids(vqvae)
    assert [grid.size for grid in codes.description.grids] == [(7, 7), (14, 14)]
    assert codes.description.class_names == DIGITS
    sample = codes[13]
    assert sample["class_labels"] == 3 and sample["caption"] == "three"
    assert [tuple(grid.shape) for grid in sample["indices"]] == [(7, 7), (14, 14)]


def test_the_priors_are_those_of_their_levels_and_draw_pictures_of_a_class(folder, tmp_path):
    vqvae = VQVAE2.from_pretrained(folder / "vqvae")
    priors = [PixelCNN.from_pretrained(folder / f"prior-{level}") for level in (1, 2)]
    assert [prior.config.grid_size for prior in priors] == [(7, 7), (14, 14)]
    assert [prior.config.condition_factors for prior in priors] == [None, [2]]
    assert [prior.config.codebook_id for prior in priors] == list(level_codebook_ids(vqvae))
    assert all(prior.config.id2label[7] == "seven" for prior in priors)
    VQVAEPipeline(vqvae, *priors).save_pretrained(tmp_path)
    pipe = VQVAEPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(["seven", 1], num_images=2, seed=0)
    assert output.class_labels == [7, 7, 1, 1] and output.images[0].size == (28, 28)


def test_only_the_lowest_level_shows_pictures_while_it_trains(folder):
    assert not (folder / "prior-1" / "images").exists()
    assert next((folder / "prior-2" / "images").glob("samples-*.png")).stat().st_size > 0


def test_the_codes_of_one_level_are_refused_where_those_of_another_tokenizer_are_wanted(folder, tmp_path):
    VQVAE2(VQVAE2.config_class(image_size=28, **VQVAE)).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="belong to codebook"):
        run_script(
            "train_pixelcnn.py",
            *("--codes", str(folder / "codes"), "--vqvae", str(tmp_path / "other"), "--output_dir", str(tmp_path)),
        )
