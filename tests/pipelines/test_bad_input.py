"""Bad arguments of a pipeline: an error that names the argument, what came and what was expected."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from mosaics.pipelines.seeds import candidate_seed, resolve_seeds
from testing_utils import tiny_pipeline

PROMPT = "a lion on a blue background"
PICTURE = Image.new("RGB", (16, 16), "red")


@pytest.fixture(scope="module")
def plain():
    return tiny_pipeline(with_clip=False)


def refused(pipe, expected: tuple[str, ...], *arguments, error=ValueError, **keywords):
    with pytest.raises(error) as caught:
        pipe(*arguments, **keywords)
    for text in expected:
        assert text in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", ("prompt", "empty")),
        ("  \n ", ("prompt", "empty")),
        ([PROMPT, ""], ("prompt[1]", "empty")),
        ([], ("prompt", "1 to")),
        (None, ("prompt", "NoneType")),
        (3, ("prompt", "int")),
        (b"a lion", ("prompt", "bytes")),
        ({"text": "a lion"}, ("prompt", "dict")),
        ([["a lion"]], ("prompt[0]", "list")),
        ("a lion " * 20, ("prompt", "tokens", "24")),
        ([PROMPT, "a lion " * 20], ("prompt[1]", "tokens", "24")),
        ("\ud800 lion", ("prompt", "lone surrogate")),
    ],
)
def test_prompts(plain, prompt, expected):
    refused(plain, expected, prompt)


def test_an_enormous_prompt_is_refused_at_once(plain):
    start = time.perf_counter()
    refused(plain, ("prompt", "5,000,000"), "a" * 5_000_000)
    assert time.perf_counter() - start < 0.1


def test_special_tokens_typed_in_a_prompt_are_text(plain):
    pad = plain.tokenizer.pad_token
    assert not torch.equal(plain(f"a {pad} lion", seed=0).indices, plain("a lion", seed=0).indices)
    ids = plain.tokenizer(f"a {pad} lion")["input_ids"]
    assert plain.tokenizer.pad_token_id not in ids


def test_case_and_white_space_do_not_matter(plain):
    assert torch.equal(plain(" A  Lion\0\n", seed=0).indices, plain("a lion", seed=0).indices)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"temperature": -1}, ("temperature", "-1")),
        ({"temperature": float("nan")}, ("temperature", "nan")),
        ({"temperature": "hot"}, ("temperature", "'hot'")),
        ({"top_k": 0}, ("top_k", "1 to", "32")),
        ({"top_k": 33}, ("top_k", "32", "33")),
        ({"top_k": 1.5}, ("top_k", "1.5")),
        ({"top_p": 0}, ("top_p", "0")),
        ({"top_p": 1.1}, ("top_p", "1.1")),
        ({"guidance_scale": -0.1}, ("guidance_scale", "-0.1")),
        ({"guidance_scale": float("inf")}, ("guidance_scale", "inf")),
        ({"guidance_scale": "2"}, ("guidance_scale", "'2'")),
        ({"num_candidates": 0}, ("num_candidates", "0")),
        ({"num_candidates": 2.0}, ("num_candidates", "2.0")),
        ({"num_candidates": 10**7}, ("num_candidates", "1,000,000")),
        ({"num_images_per_prompt": -1}, ("num_images_per_prompt", "-1")),
        ({"num_images_per_prompt": True}, ("num_images_per_prompt", "True")),
        ({"num_candidates": 2, "num_images_per_prompt": 3}, ("num_images_per_prompt=3", "num_candidates=2")),
        ({"num_candidates": 4}, ("num_candidates=4", "no clip")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"seed": -1}, ("seed", "-1")),
        ({"seed": 2**64}, ("seed",)),
        ({"seed": "7"}, ("seed", "'7'")),
        ({"seed": 0.5}, ("seed", "0.5")),
        ({"seed": [1, 2]}, ("seed", "list of 2")),
        ({"seed": 1, "generator": torch.Generator()}, ("seed or generator",)),
        ({"generator": 7}, ("generator", "int")),
        ({"generator": [torch.Generator()] * 3}, ("generator", "list of 3")),
        ({"output_type": "latent"}, ("output_type", "'pil'", "'latent'")),
        ({"prefix_rows": 1}, ("prefix_rows=1 without image",)),
        ({"image": PICTURE}, ("image with prefix_rows=0",)),
        ({"image": PICTURE, "prefix_rows": 4}, ("prefix_rows", "0 to 3", "4")),
        ({"image": PICTURE, "prefix_rows": -1}, ("prefix_rows", "-1")),
        ({"image": Image.new("RGB", (16, 17)), "prefix_rows": 1}, ("image[0]", "16 x 17", "16 x 16")),
        ({"image": [PICTURE] * 2, "prefix_rows": 1}, ("image", "got 2")),
        ({"image": Image.new("F", (16, 16), 7.0), "prefix_rows": 1}, ("image[0]", "'F'")),
        ({"image": "nowhere.png", "prefix_rows": 1}, ("image[0]", "nowhere.png")),
        ({"image": np.full((16, 16, 3), 2.0), "prefix_rows": 1}, ("image[0]", "[0, 1]")),
        ({"image": torch.zeros(16, 16), "prefix_rows": 1}, ("image[0]", "(16, 16)")),
    ],
    ids=str,
)
def test_arguments(plain, keywords, expected):
    refused(plain, expected, PROMPT, **keywords)


def test_a_transparent_picture_is_completed_on_white(plain):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    on_white = plain(PROMPT, image=Image.new("RGB", (16, 16), "white"), prefix_rows=2, seed=0)
    assert torch.equal(plain(PROMPT, image=clear, prefix_rows=2, seed=0).indices, on_white.indices)


def test_a_seed_of_a_candidate_is_its_own_and_stable():
    seeds = resolve_seeds(5, None, num_prompts=3, num_candidates=4)
    flat = [seed for row in seeds for seed in row]
    assert len(set(flat)) == 12 and seeds[0][0] == 5
    assert seeds[2][3] == candidate_seed(5, 2, 3)
    assert candidate_seed(5, 0, 1) == 7017849772739745776, "published seeds must redraw their pictures for ever"
    assert resolve_seeds(flat, None, 3, 4) == seeds
    assert resolve_seeds([5, 6], None, 2, 2) == [[5, candidate_seed(5, 0, 1)], [6, candidate_seed(6, 0, 1)]]
