"""The DALL-E pipeline: the same picture for the same seed, the best by CLIP, completion, interruption, saving."""

import inspect

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from transformers import AutoModel, AutoTokenizer

from mosaics import DallePipeline, DalleTransformer, DiscreteVAE, pipeline
from mosaics.pipelines.hub import PipelineFolderError
from mosaics.pipelines.running import DrawingStopped, IncompleteResultWarning
from testing_utils import tiny_pipeline

PROMPT = "a lion on a blue background"


@pytest.fixture(scope="module")
def pipe() -> DallePipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def plain() -> DallePipeline:
    """Without CLIP."""
    return tiny_pipeline(with_clip=False)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipe") / "saved"
    pipe.save_pretrained(folder)
    return folder


def bar_off(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_call_takes_the_documented_arguments():
    arguments = {name: value.default for name, value in inspect.signature(DallePipeline.__call__).parameters.items()}
    names = "self prompt num_candidates num_images_per_prompt image prefix_rows temperature top_k top_p guidance_scale"
    names += " seed generator batch_size output_type return_dict callback_on_step_end"
    assert list(arguments) == names.split()
    assert arguments["num_candidates"] == arguments["num_images_per_prompt"] == 1
    assert arguments["temperature"] is arguments["guidance_scale"] is None  # the pipeline's own


def test_candidate_i_is_the_same_in_any_batch_size_and_alone(plain):
    sizes = {size: plain(PROMPT, num_images_per_prompt=32, seed=9, batch_size=size) for size in (1, 4, 32)}
    for output in sizes.values():
        assert torch.equal(output.indices, sizes[32].indices)
        assert output.seeds == sizes[32].seeds
    assert len({tuple(indices.flatten().tolist()) for indices in sizes[32].indices}) > 20, "candidates differ"
    for number in (0, 5, 31):
        again = plain(PROMPT, seed=sizes[1].seeds[number])
        assert torch.equal(again.indices[0], sizes[1].indices[number])
        assert again.images[0].tobytes() == sizes[1].images[number].tobytes()


def test_prompts_in_one_call_share_batches_but_not_pictures(plain):
    prompts = [PROMPT, "two yellow stars on black", PROMPT]
    output = plain(prompts, num_images_per_prompt=2, seed=4, batch_size=4)
    assert output.prompts == [prompt for prompt in prompts for _ in range(2)]
    assert len(set(output.seeds)) == 6
    for batch_size in (1, 3, 6):
        again = plain(prompts, num_images_per_prompt=2, seed=4, batch_size=batch_size)
        assert torch.equal(again.indices, output.indices)
    redrawn = plain(output.prompts, seed=output.seeds)
    assert torch.equal(redrawn.indices, output.indices)


def test_generators_give_the_seed(plain):
    first = plain(PROMPT, generator=torch.Generator().manual_seed(3))
    again = plain(PROMPT, generator=torch.Generator().manual_seed(3))
    assert first.seeds == again.seeds and torch.equal(first.indices, again.indices)
    generator = torch.Generator().manual_seed(3)
    assert plain(PROMPT, generator=generator).seeds != plain(PROMPT, generator=generator).seeds
    several = plain([PROMPT] * 3, generator=[torch.Generator().manual_seed(number) for number in (8, 3, 9)])
    assert torch.equal(several.indices[1], first.indices[0])
    torch.manual_seed(0)
    unseeded = plain(PROMPT)
    assert torch.equal(plain(PROMPT, seed=unseeded.seeds[0]).indices, unseeded.indices)


def test_output_types_show_the_same_pictures(plain):
    images = plain(PROMPT, num_images_per_prompt=2, seed=0).images
    array = plain(PROMPT, num_images_per_prompt=2, seed=0, output_type="np").images
    output = plain(PROMPT, num_images_per_prompt=2, seed=0, output_type="pt")
    assert array.shape == (2, 16, 16, 3) and array.dtype == np.float32
    assert output.images.shape == (2, 3, 16, 16) and 0 <= output.images.min() and output.images.max() <= 1
    np.testing.assert_array_equal(array, output.images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal((array[1] * 255).round().astype(np.uint8), np.asarray(images[1]))
    with torch.no_grad():
        torch.testing.assert_close(plain.dvae.decode(output.indices), output.images)
    assert plain(PROMPT, seed=0, return_dict=False)[0][0].tobytes() == images[0].tobytes()


def test_sampling_arguments_reach_the_transformer(plain):
    def indices(**arguments):
        return plain(PROMPT, num_images_per_prompt=4, seed=2, **arguments).indices

    greedy = indices(temperature=0)
    assert all(torch.equal(grid, greedy[0]) for grid in greedy)
    assert torch.equal(indices(top_k=1), greedy) and not torch.equal(indices(), greedy)
    assert torch.equal(indices(top_p=1e-6), greedy)
    assert not torch.equal(indices(guidance_scale=4.0), indices())


def test_a_pipeline_is_saved_with_its_temperature_which_calls_without_one_take(plain, tmp_path):
    plain.save_pretrained(tmp_path)
    greedy = DallePipeline.from_pretrained(tmp_path, temperature=0)
    greedy.set_progress_bar_config(disable=True)
    drawn = greedy(PROMPT, num_images_per_prompt=4, seed=2).indices
    assert torch.equal(drawn, plain(PROMPT, num_images_per_prompt=4, seed=2, temperature=0).indices)
    assert not torch.equal(greedy(PROMPT, num_images_per_prompt=4, seed=2, temperature=1.0).indices, drawn)


def test_a_pipeline_is_saved_with_its_guidance_which_calls_without_one_take(plain, tmp_path):
    plain.save_pretrained(tmp_path / "plain")
    assert DallePipeline.from_pretrained(tmp_path / "plain").config["guidance_scale"] == 1.0
    changed = DallePipeline.from_pretrained(tmp_path / "plain", guidance_scale=4.0)
    changed.save_pretrained(tmp_path / "changed")
    for pipe in (
        DallePipeline.from_pretrained(tmp_path / "changed"),
        DiffusionPipeline.from_pretrained(tmp_path / "changed"),
    ):
        pipe.set_progress_bar_config(disable=True)
        drawn = pipe(PROMPT, num_images_per_prompt=4, seed=2).indices
        assert torch.equal(drawn, plain(PROMPT, num_images_per_prompt=4, seed=2, guidance_scale=4.0).indices)
        unguided = pipe(PROMPT, num_images_per_prompt=4, seed=2, guidance_scale=1.0).indices
        assert torch.equal(unguided, plain(PROMPT, num_images_per_prompt=4, seed=2).indices)
    with pytest.raises(ValueError, match="guidance_scale must be finite"):
        DallePipeline.from_pretrained(tmp_path / "plain", guidance_scale=-1.0)
    index = tmp_path / "plain" / "model_index.json"
    index.write_text(index.read_text().replace('"guidance_scale": 1.0', '"guidance_scale": "high"'))
    with pytest.raises(PipelineFolderError, match="'guidance_scale' must be a number, got 'high'"):
        DallePipeline.from_pretrained(tmp_path / "plain")


def test_a_completed_picture_keeps_the_codes_of_its_first_rows(plain):
    image = plain("two yellow stars on black", seed=1).images[0]
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        codes = plain.dvae.encode(pixels)[0]
    for rows in (1, 3):
        output = plain(PROMPT, image=image, prefix_rows=rows, num_images_per_prompt=6, seed=1)
        assert torch.equal(output.indices[:, :rows], codes[:rows].expand(6, -1, -1))
        assert len({tuple(grid[rows:].flatten().tolist()) for grid in output.indices}) > 1
        alone = plain(PROMPT, image=image, prefix_rows=rows, seed=output.seeds[4])
        assert torch.equal(alone.indices[0], output.indices[4])
    other = plain(PROMPT, seed=7).images[0]
    each = plain([PROMPT] * 2, image=[image, other], prefix_rows=2, seed=3)
    assert torch.equal(each.indices[0, :2], codes[:2]) and not torch.equal(each.indices[1, :2], codes[:2])
    in_turn = plain([PROMPT] * 2, image=[image, other], prefix_rows=2, seed=3, batch_size=1)
    assert torch.equal(in_turn.indices, each.indices)
    same = plain(PROMPT, image=pixels, prefix_rows=2, seed=3)
    assert torch.equal(same.indices[0], each.indices[0])


def test_progress_counts_every_code(plain, monkeypatch):
    bars = []
    original = plain.progress_bar

    def recording(**arguments):
        bars.append(original(**arguments))
        return bars[-1]

    monkeypatch.setattr(plain, "progress_bar", recording)
    plain.set_progress_bar_config(disable=False, file=open("/dev/null", "w"))
    plain([PROMPT] * 2, num_images_per_prompt=3, seed=0, batch_size=2)
    plain(PROMPT, image=torch.zeros(3, 16, 16), prefix_rows=3, seed=0)
    plain._progress_bar_config["file"].close()
    bar_off(plain)
    assert [(bar.n, bar.total) for bar in bars] == [(96, 96), (4, 4)]


def test_the_callback_sees_every_step_and_the_codes_so_far(plain):
    calls = []

    def callback(pipe, step, timestep, tensors):
        assert pipe is plain
        calls.append((step, timestep, tensors["indices"].shape[0], tensors["indices"][:, timestep].tolist()))
        return {}

    output = plain(PROMPT, num_images_per_prompt=3, seed=0, batch_size=2, callback_on_step_end=callback)
    assert [call[0] for call in calls] == list(range(32))
    assert [call[1] for call in calls] == [*range(16), *range(16)]
    assert [call[2] for call in calls] == [2] * 16 + [1] * 16
    assert calls[5][3] == output.indices.flatten(1)[:2, 5].tolist()
    assert plain.num_timesteps == 16


@pytest.mark.parametrize("kind", ["interrupt", "keyboard", "memory"])
def test_what_is_finished_survives_an_interruption(plain, kind):
    def callback(pipe, step, timestep, tensors):
        if step == 40:
            if kind == "interrupt":
                pipe._interrupt = True
            else:
                raise {"keyboard": KeyboardInterrupt, "memory": torch.OutOfMemoryError}[kind]("no more")
        return {}

    with pytest.warns(IncompleteResultWarning, match="after 4 of 6 candidates"):
        output = plain(PROMPT, num_images_per_prompt=6, seed=0, batch_size=2, callback_on_step_end=callback)
    whole = plain(PROMPT, num_images_per_prompt=6, seed=0)
    assert torch.equal(output.indices, whole.indices[:4]) and output.seeds == whole.seeds[:4]
    assert len(output.images) == len(output.prompts) == 4


def test_an_interruption_before_anything_is_finished_is_an_error(plain):
    def stop(pipe, *_):
        pipe._interrupt = True
        return {}

    with pytest.raises(DrawingStopped):
        plain(PROMPT, callback_on_step_end=stop)

    def ctrl_c(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain(PROMPT, callback_on_step_end=ctrl_c)
    assert len(plain(PROMPT, seed=0).images) == 1, "the next call is not stopped"


def test_a_saved_pipeline_draws_the_same_pictures(pipe, saved):
    expected = pipe(PROMPT, num_candidates=4, seed=5)
    for load in (DallePipeline, DiffusionPipeline):
        other = bar_off(load.from_pretrained(saved))
        assert isinstance(other, DallePipeline)
        found = other(PROMPT, num_candidates=4, seed=5)
        assert torch.equal(found.indices, expected.indices)
        assert found.clip_scores == pytest.approx(expected.clip_scores, abs=1e-6)
        assert found.images[0].tobytes() == expected.images[0].tobytes()


def test_each_part_loads_alone(pipe, saved):
    assert isinstance(AutoModel.from_pretrained(saved, subfolder="dvae"), DiscreteVAE)
    assert isinstance(AutoModel.from_pretrained(saved, subfolder="transformer"), DalleTransformer)
    tokenizer = AutoTokenizer.from_pretrained(saved, subfolder="tokenizer")
    assert tokenizer(PROMPT)["input_ids"] == pipe.tokenizer(PROMPT)["input_ids"]
    dvae = DiscreteVAE.from_pretrained(saved, subfolder="dvae")
    assert bar_off(DallePipeline.from_pretrained(saved, dvae=dvae)).dvae is dvae


def test_the_reranker_is_optional(saved, tmp_path):
    without = bar_off(DallePipeline.from_pretrained(saved, clip=None, clip_processor=None))
    assert without.clip is None and without(PROMPT, seed=0).clip_scores == [None]
    without.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / "clip").exists()
    assert DallePipeline.from_pretrained(tmp_path / "without").clip is None


def test_precision_and_device_follow_to_and_dtype(saved):
    pipe = bar_off(DallePipeline.from_pretrained(saved, dtype=torch.bfloat16))
    assert {pipe.transformer.dtype, pipe.dvae.dtype, pipe.clip.dtype} == {torch.bfloat16}
    assert pipe(PROMPT, num_candidates=2, seed=0, output_type="pt").images.dtype == torch.float32
    pipe = pipe.to(torch.float32)
    assert pipe.transformer.dtype == torch.float32
    half = bar_off(DallePipeline.from_pretrained(saved)).to(torch.float16)
    half.save_pretrained(saved.parent / "half")
    assert DallePipeline.from_pretrained(saved.parent / "half").transformer.dtype == torch.float32, "the default"


def test_the_transformers_task_is_the_same_pipeline(pipe, saved, tmp_path):
    task = pipeline("text-to-image", model=str(saved), device="cpu")
    bar_off(task.model)
    expected = pipe(PROMPT, num_candidates=4, seed=5).images[0].tobytes()
    assert task(PROMPT, num_candidates=4, seed=5).tobytes() == expected
    several = task([PROMPT, "two yellow stars on black"], num_images_per_prompt=2, seed=5)
    assert [len(images) for images in several] == [2, 2]
    task.save_pretrained(tmp_path / "task")
    again = pipeline("text-to-image", model=str(tmp_path / "task"), device="cpu")
    assert bar_off(again.model)(PROMPT, num_candidates=4, seed=5).images[0].tobytes() == expected
    assert pipeline("text-to-image", model=pipe, device="cpu").model is pipe
    assert pipeline("text-to-image", model=str(saved), dtype=torch.bfloat16).model.dvae.dtype == torch.bfloat16


def test_auto_pipeline_finds_the_class(saved):
    assert isinstance(AutoPipelineForText2Image.from_pretrained(saved), DallePipeline)
