"""The VQ-VAE pipeline: codes of all levels from their priors, classes, rejection, completion, seeds, interruption."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification

from mosaics import VQVAE, VQVAEConfig, VQVAEPipeline
from mosaics.pipelines.running import DrawingStopped, IncompleteResultWarning
from mosaics.pipelines.seeds import candidate_seed, seed_uniforms
from testing_utils import (
    tiny_classifier,
    tiny_dvae,
    tiny_pixelcnn,
    tiny_priors,
    tiny_vqvae2,
    tiny_vqvae_pipeline,
)

NAMES = {0: "lion", 1: "fish", 2: "boat"}


def bar_off(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_vqvae(**fields) -> VQVAE:
    """A VQ-VAE of 16x16 pictures and 4x4 codes."""
    defaults = {"image_size": 16, "num_embeddings": 16, "embedding_dim": 4, "hidden_size": 8}
    torch.manual_seed(7)
    return VQVAE(VQVAEConfig(**(defaults | {"num_residual_layers": 1, "residual_hidden_size": 4} | fields)))


@pytest.fixture(scope="module")
def pipe() -> VQVAEPipeline:
    """Two levels, no classes."""
    return tiny_vqvae_pipeline()


@pytest.fixture(scope="module")
def judged() -> VQVAEPipeline:
    """Two levels, three classes with names, a classifier of them."""
    return tiny_vqvae_pipeline(classifier=tiny_classifier(), num_classes=3, id2label=NAMES)


def same_grids(found, expected) -> bool:
    return len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_call_takes_the_documented_arguments():
    arguments = {name: value.default for name, value in inspect.signature(VQVAEPipeline.__call__).parameters.items()}
    names = "self class_labels num_images num_candidates image prefix_rows temperature top_k top_p seed generator"
    names += " batch_size output_type return_dict callback_on_step_end"
    assert list(arguments) == names.split()
    assert arguments["num_candidates"] == arguments["num_images"] == arguments["temperature"] == 1


@pytest.mark.parametrize("num_levels", [2, 3])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_picture_is_what_the_priors_draw_from_the_top_down_decoded(num_levels, num_classes):
    pipe = tiny_vqvae_pipeline(num_levels, num_classes=num_classes)
    labels = None if num_classes is None else [2, 0]
    output = pipe(labels, num_images=3, seed=8, output_type="pt", temperature=0.9, top_k=12)
    count = len(output.images)
    assert output.class_labels == ([None] * 3 if labels is None else [2, 2, 2, 0, 0, 0])

    sides = [2 ** (number + 1) for number in range(num_levels)]
    uniforms = seed_uniforms(output.seeds, sum(side**2 for side in sides)).split([side**2 for side in sides], dim=1)
    grids = []
    for prior, own in zip(pipe.priors, uniforms, strict=True):
        classes = None if labels is None else torch.tensor(output.class_labels)
        sampling = {"temperature": 0.9, "top_k": 12}
        grids.append(prior.generate(class_labels=classes, conditions=tuple(grids), uniforms=own, **sampling))
    assert same_grids(output.indices, grids)
    assert [tuple(grid.shape) for grid in output.indices] == [(count, side, side) for side in sides]
    with torch.no_grad():
        torch.testing.assert_close(output.images, pipe.vqvae.decode(tuple(grids)))
    assert len({tuple(grid.flatten().tolist()) for grid in output.indices[-1]}) == count, "candidates differ"


def test_a_lower_prior_may_see_only_the_grid_right_above_it():
    priors = tiny_priors(3)
    sizes = {"grid_height": 8, "grid_width": 8, "condition_num_embeddings": [16], "condition_factors": [2]}
    priors[2] = tiny_pixelcnn(**sizes)
    pipe = bar_off(VQVAEPipeline(tiny_vqvae2(3), *priors))
    output = pipe(num_images=2, seed=1)
    uniforms = seed_uniforms(output.seeds, 84)[:, 20:]
    assert torch.equal(output.indices[2], priors[2].generate(conditions=(output.indices[1],), uniforms=uniforms))


@pytest.mark.parametrize("tokenizer", [tiny_vqvae, lambda: tiny_dvae(num_embeddings=16)])
def test_a_tokenizer_of_one_grid_has_one_prior(tokenizer):
    tokenizer = tokenizer().eval()
    prior = tiny_pixelcnn(grid_width=4, initializer_range=1.0, num_attention_layers=1)
    pipe = bar_off(VQVAEPipeline(tokenizer, prior))
    output = pipe(num_images=2, seed=3, output_type="pt")
    expected = prior.generate(uniforms=seed_uniforms(output.seeds, 16))
    assert len(output.indices) == 1 and torch.equal(output.indices[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(output.images, tokenizer.decode(expected))


def test_several_codes_at_a_position_are_drawn_and_completed():
    tokenizer = tiny_vqvae(latents_per_position=3).eval()
    prior = tiny_pixelcnn(grid_width=4, latents_per_position=3, initializer_range=1.0)
    pipe = bar_off(VQVAEPipeline(tokenizer, prior))
    assert pipe.num_timesteps == 48
    output = pipe(num_images=2, seed=3, output_type="pt")
    expected = prior.generate(uniforms=seed_uniforms(output.seeds, 48))
    assert expected.shape == (2, 4, 4, 3) and torch.equal(output.indices[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(output.images, tokenizer.decode(expected))
    given = pipe.reconstruct(output.images[:1]).indices[0][:, :2]
    completed = pipe(image=output.images[:1], prefix_rows=2, num_images=3, seed=5).indices[0]
    assert torch.equal(completed[:, :2], given.expand(3, -1, -1, -1))
    assert len({tuple(rest.flatten().tolist()) for rest in completed[:, 2:]}) > 1


@pytest.mark.parametrize("levels", [2, 3])
def test_candidate_i_is_the_same_in_any_batch_size_and_alone(levels):
    pipe = tiny_vqvae_pipeline(levels, num_classes=3)
    whole = pipe([1, 0], num_images=3, seed=9)
    for batch_size in (1, 2, 5):
        output = pipe([1, 0], num_images=3, seed=9, batch_size=batch_size)
        assert same_grids(output.indices, whole.indices) and output.seeds == whole.seeds
        for ours, theirs in zip(output.images, whole.images, strict=True):
            difference = np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)
            assert np.abs(difference).max() <= 1, "no more than the rounding of a pixel"
    assert whole.seeds[0] == 9 and whole.seeds[5] == candidate_seed(9, 1, 2)
    alone = pipe(0, seed=whole.seeds[5])
    assert same_grids(alone.indices, [grid[5:] for grid in whole.indices])
    again = pipe(whole.class_labels, seed=whole.seeds)
    assert same_grids(again.indices, whole.indices)


def test_generators_give_the_seed(pipe):
    first, again = (pipe(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.seeds == again.seeds and same_grids(first.indices, again.indices)
    torch.manual_seed(0)
    unseeded = pipe()
    assert same_grids(pipe(seed=unseeded.seeds[0]).indices, unseeded.indices)


def test_classes_have_numbers_and_names(judged):
    assert judged.num_classes == 3 and judged.class_names == NAMES
    by_number = judged([2, 0], seed=4)
    assert by_number.class_labels == [2, 0]
    for labels in (["boat", "lion"], ["boat", 0], torch.tensor([2, 0]), np.array([2, 0])):
        assert same_grids(judged(labels, seed=4).indices, by_number.indices)
    one = judged("boat", seed=4)
    assert same_grids(one.indices, [grid[:1] for grid in by_number.indices])
    assert not same_grids(judged("fish", seed=4).indices, one.indices), "the class matters"


def test_a_lower_prior_may_know_no_classes():
    with_classes, without = tiny_priors(2, num_classes=3), tiny_priors(2)
    pipe = bar_off(VQVAEPipeline(tiny_vqvae2(), with_classes[0], without[1]))
    output = pipe([0, 1], seed=2)
    expected = without[1].generate(conditions=(output.indices[0],), uniforms=seed_uniforms(output.seeds, 20)[:, 4:])
    assert torch.equal(output.indices[1], expected)


def test_rejection_keeps_the_candidates_whose_class_is_most_probable(judged):
    drawn = judged([1, 2], num_images=12, num_candidates=12, seed=6, output_type="pt")
    with torch.no_grad():
        probabilities = judged.classifier(drawn.images).logits.softmax(dim=-1)
    expected = probabilities[range(24), drawn.class_labels]
    torch.testing.assert_close(torch.tensor(drawn.scores), expected)
    for rows in (drawn.scores[:12], drawn.scores[12:]):
        assert rows == sorted(rows, reverse=True) and len(set(rows)) == 12
    for batch_size in (None, 5):
        kept = judged([1, 2], num_images=2, num_candidates=12, seed=6, batch_size=batch_size)
        assert kept.class_labels == [1, 1, 2, 2]
        assert kept.seeds == [drawn.seeds[number] for number in (0, 1, 12, 13)]
        assert kept.scores == pytest.approx([drawn.scores[number] for number in (0, 1, 12, 13)])
        assert same_grids(kept.indices, [grid[[0, 1, 12, 13]] for grid in drawn.indices])


def test_without_classes_the_surest_pictures_are_kept():
    pipe = tiny_vqvae_pipeline(classifier=tiny_classifier())
    output = pipe(num_images=6, num_candidates=6, seed=0, output_type="pt")
    with torch.no_grad():
        expected = pipe.classifier(output.images).logits.softmax(dim=-1).amax(dim=-1)
    torch.testing.assert_close(torch.tensor(output.scores), expected)
    assert pipe(num_candidates=6, seed=0).seeds == output.seeds[:1]


def test_a_classifier_reads_pictures_through_its_processor():
    from transformers import ViTConfig
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    torch.manual_seed(0)
    vit = ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)).eval()
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    pipe = VQVAEPipeline(tiny_vqvae2(), *tiny_priors(), classifier=vit, classifier_processor=processor)
    output = bar_off(pipe)(num_images=2, seed=0)
    inputs = processor(images=output.images, return_tensors="pt")
    with torch.no_grad():
        expected = vit(**inputs).logits.softmax(dim=-1).amax(dim=-1)
    assert output.scores == pytest.approx(expected.tolist())


def test_a_failing_classifier_costs_the_ranking_and_not_the_pictures(judged, monkeypatch):
    monkeypatch.setattr(type(judged.classifier), "forward", lambda self, pixels: 1 / 0)
    with pytest.warns(IncompleteResultWarning, match="classifier failed .ZeroDivisionError"):
        output = judged(1, num_images=2, num_candidates=4, seed=6, batch_size=2)
    assert output.scores == [None, None] and output.seeds == [6, candidate_seed(6, 0, 1)]


@pytest.mark.parametrize("levels", [2, 3])
def test_a_completed_picture_keeps_the_codes_of_its_upper_part(levels):
    pipe = tiny_vqvae_pipeline(levels, num_classes=2)
    image = pipe(0, seed=1).images[0]
    codes = pipe.reconstruct(image).indices
    output = pipe([1, 0], image=image, prefix_rows=1, num_images=3, seed=5)
    for number, (grid, given) in enumerate(zip(output.indices, codes, strict=True)):
        rows = 2**number
        assert torch.equal(grid[:, :rows], given[:, :rows].expand(6, -1, -1))
        assert len({tuple(rest.flatten().tolist()) for rest in grid[:, rows:]}) > 1
    for batch_size in (1, 4):
        again = pipe([1, 0], image=image, prefix_rows=1, num_images=3, seed=5, batch_size=batch_size)
        assert same_grids(again.indices, output.indices)
    other = pipe(1, seed=3).images[0]
    each = pipe([0, 0], image=[image, other], prefix_rows=1, seed=5)
    others_codes = pipe.reconstruct(other).indices
    assert torch.equal(each.indices[1][0, :2], codes[1][0, :2])
    assert torch.equal(each.indices[1][1, :2], others_codes[1][0, :2])


def test_reconstruct_encodes_and_decodes(pipe):
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    output = pipe.reconstruct(pixels, batch_size=2, output_type="pt")
    with torch.no_grad():
        expected = pipe.vqvae.encode(pixels)
        torch.testing.assert_close(output.images, pipe.vqvae.decode(expected))
    assert same_grids(output.indices, expected)
    large = Image.new("RGB", (40, 20), "red")
    images, indices = pipe.reconstruct([large, np.zeros((16, 16, 3), np.uint8)], return_dict=False)
    assert [image.size for image in images] == [(16, 16)] * 2 and indices[1].shape == (2, 4, 4)


def test_a_tokenizer_of_gray_pictures_draws_and_reads_gray():
    pipe = bar_off(VQVAEPipeline(tiny_vqvae(num_channels=1), tiny_pixelcnn(grid_width=4)))
    output = pipe(seed=0)
    assert output.images[0].mode == "L"
    assert pipe.reconstruct(output.images[0], output_type="np").images.shape == (1, 16, 16, 1)
    white = pipe.reconstruct(Image.new("RGB", (16, 16), "white")).indices[0]
    with torch.no_grad():
        assert torch.equal(white, pipe.vqvae.encode(torch.ones(1, 1, 16, 16)))


def test_output_types_show_the_same_pictures(pipe):
    images, array, tensor = (pipe(num_images=2, seed=0, output_type=kind).images for kind in ("pil", "np", "pt"))
    assert array.shape == (2, 16, 16, 3) and tensor.shape == (2, 3, 16, 16)
    np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal((array[1] * 255).round().astype(np.uint8), np.asarray(images[1]))
    assert pipe(seed=0, return_dict=False)[0][0].tobytes() == images[0].tobytes()


def test_sampling_arguments_reach_the_priors(judged):
    def indices(**arguments):  # of a class: without one the first code of untrained priors is a tie
        return judged(1, num_images=3, seed=2, **arguments).indices

    greedy = indices(temperature=0)
    assert all(torch.equal(grid, grid[:1].expand_as(grid)) for grid in greedy)
    assert same_grids(indices(top_k=1), greedy) and same_grids(indices(top_p=1e-6), greedy)
    assert not same_grids(indices(), greedy)


def test_the_callback_sees_every_step_and_the_progress_bar_counts_them(pipe, monkeypatch):
    calls, bars = [], []

    def callback(_, step, timestep, tensors):
        calls.append((step, timestep, tuple(tensors["indices"].shape)))
        return {}

    original = pipe.progress_bar

    def recording(**arguments):
        bars.append(original(**arguments))
        return bars[-1]

    monkeypatch.setattr(pipe, "progress_bar", recording)
    with open("/dev/null", "w") as file:
        pipe.set_progress_bar_config(disable=False, file=file)
        pipe(num_images=3, seed=0, batch_size=2, callback_on_step_end=callback)
        pipe(image=Image.new("RGB", (16, 16)), prefix_rows=1, seed=0)
    pipe._progress_bar_config = {"disable": True}
    assert [call[0] for call in calls] == list(range(40))
    assert [call[1] for call in calls] == [*range(20), *range(20)] and pipe.num_timesteps == 20
    assert [call[2] for call in calls] == [(2, 4)] * 4 + [(2, 16)] * 16 + [(1, 4)] * 4 + [(1, 16)] * 16
    assert [(bar.n, bar.total) for bar in bars] == [(60, 60), (10, 10)]


def test_what_is_finished_survives_an_interruption(pipe):
    def stop(pipe, step, *_):
        pipe._interrupt = step == 50
        return {}

    with pytest.warns(IncompleteResultWarning, match="after 4 of 6 candidates"):
        output = pipe(num_images=6, seed=0, batch_size=2, callback_on_step_end=stop)
    whole = pipe(num_images=6, seed=0)
    assert same_grids(output.indices, [grid[:4] for grid in whole.indices]) and output.seeds == whole.seeds[:4]
    assert len(output.images) == 4

    def stop_at_once(pipe, *_):
        pipe._interrupt = True
        return {}

    with pytest.raises(DrawingStopped):
        pipe(callback_on_step_end=stop_at_once)
    assert len(pipe(seed=0).images) == 1, "the next call is not stopped"


def test_precision_follows_to(pipe):
    half = tiny_vqvae_pipeline().to(torch.bfloat16)
    assert {half.vqvae.dtype, half.prior.dtype, half.prior_2.dtype} == {torch.bfloat16}
    assert half(seed=0, output_type="pt").images.dtype == torch.float32
