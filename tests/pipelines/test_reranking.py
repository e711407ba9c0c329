"""CLIP as judge: it keeps the best by independently computed scores; its failure costs only the ranks."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPProcessor

from mosaics.data.captions import tokenize
from mosaics.pipelines.best_candidates import BestCandidates, Candidate
from mosaics.pipelines.reranking import Reranker, clip_pixels, clip_text_inputs, load_clip
from mosaics.pipelines.running import IncompleteResultWarning
from testing_utils import CAPTIONS, tiny_clip, tiny_pipeline, tiny_tokenizer

PROMPTS = list(CAPTIONS[:3])


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@torch.no_grad()
def independent_scores(pipe, images, prompts) -> torch.Tensor:
    """CLIP's own forward on the processor's own inputs: cosines (images, prompts)."""
    pixels = pipe.clip_processor(images=images, return_tensors="pt").pixel_values
    ids = torch.nn.functional.pad(tokenize(pipe.tokenizer, prompts), (0, 1))
    output = pipe.clip(input_ids=ids, pixel_values=pixels)
    return output.logits_per_image / pipe.clip.logit_scale.exp()


def test_the_best_by_independent_scores_are_kept(pipe):
    output = pipe(PROMPTS, num_candidates=12, num_images_per_prompt=3, seed=3, batch_size=5)
    everything = pipe(PROMPTS, num_candidates=12, num_images_per_prompt=12, seed=3)
    scores = independent_scores(pipe, everything.images, PROMPTS)
    for number in range(len(PROMPTS)):
        rows = range(12 * number, 12 * number + 12)
        best = sorted(rows, key=lambda row: -scores[row, number])[:3]
        kept = slice(3 * number, 3 * number + 3)
        assert output.seeds[kept] == [everything.seeds[row] for row in best]
        expected = [scores[row, number].item() for row in best]
        assert output.clip_scores[kept] == pytest.approx(expected, abs=1e-3)  # 8-bit pictures there, floats here
        assert output.clip_scores[kept] == sorted(output.clip_scores[kept], reverse=True)
    assert len(set(map(tuple, scores.T.argsort().tolist()))) == 3, "the prompts order the pictures differently"


def test_the_batch_size_does_not_change_the_choice(pipe):
    outputs = [pipe(PROMPTS, num_candidates=8, seed=1, batch_size=size) for size in (1, 3, 64)]
    assert len({round(score, 4) for score in outputs[0].clip_scores}) == 3, "each prompt has scores of its own"
    for output in outputs[1:]:
        assert output.seeds == outputs[0].seeds
        assert output.clip_scores == pytest.approx(outputs[0].clip_scores, abs=1e-5)


@torch.no_grad()
def test_a_text_is_pooled_right_after_its_last_token():
    tokenizer = tiny_tokenizer()
    clip, _ = tiny_clip(tokenizer)
    ids = clip_text_inputs(tokenize(tokenizer, [CAPTIONS[0], "a"]), tokenizer.pad_token_id)
    output = clip.text_model(input_ids=ids)
    for row in range(2):
        end = int((ids[row] != tokenizer.pad_token_id).sum())
        assert torch.equal(output.pooler_output[row], output.last_hidden_state[row, end])
    shorter = clip.text_model(input_ids=ids[1:, :4]).pooler_output  # what stands after the first pad does not matter
    torch.testing.assert_close(output.pooler_output[1:], shorter)


def test_a_text_that_fills_every_position_still_has_an_end():
    tokenizer = tiny_tokenizer(max_length=4)
    full = torch.tensor([[5, 6, 7, 8]])
    assert clip_text_inputs(full, tokenizer.pad_token_id).tolist() == [[5, 6, 7, 8, 0]]
    clip, _ = tiny_clip(tokenizer)
    assert clip.config.text_config.max_position_embeddings == 5
    with torch.no_grad():
        hidden = clip.text_model(input_ids=clip_text_inputs(full, 0))
    assert torch.equal(hidden.pooler_output[0], hidden.last_hidden_state[0, 4])


@pytest.mark.parametrize("size", [16, 24])
def test_pixels_are_prepared_as_the_processor_does(size):
    clip, processor = tiny_clip(tiny_tokenizer(), image_size=size)
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4), size=(16, 16), mode="bilinear")
    pictures = (smooth * 255).round().to(torch.uint8)
    expected = processor(images=list(pictures), return_tensors="pt").pixel_values
    torch.testing.assert_close(clip_pixels(pictures / 255, clip, processor), expected, atol=0.02, rtol=0)


@pytest.fixture(scope="module")
def published():
    """A CLIP with a tokenizer of its own, which ends every text, as published ones do."""
    tokenizer = tiny_tokenizer(max_length=25)
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    clip, image_processor = tiny_clip(tokenizer)
    clip.config.text_config.eos_token_id = clip.text_model.eos_token_id = end
    return clip, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


@torch.no_grad()
def test_a_published_clip_reads_the_prompt_with_its_own_tokenizer(pipe, published):
    clip, processor = published
    features = Reranker(clip, processor).text_features(["a lion"], torch.zeros(1, 24, dtype=torch.long), 0)
    ids = torch.tensor([[*pipe.tokenizer("a lion")["input_ids"], clip.config.text_config.eos_token_id]])
    expected = clip.get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(features, expected / expected.norm())
    parts = pipe.components | {"clip": clip, "clip_processor": processor}
    other = pipe.__class__(**parts)
    other.set_progress_bar_config(disable=True)
    assert other(PROMPTS[0], num_candidates=3, seed=0).clip_scores[0] is not None


def test_a_tokenizer_that_ends_no_text_is_noticed(published):
    clip, processor = published
    without_end = CLIPProcessor(image_processor=processor.image_processor, tokenizer=tiny_tokenizer(max_length=25))
    with pytest.raises(ValueError, match="ends no text with eos_token_id"):
        Reranker(clip, without_end).text_features(["a lion"], torch.zeros(1, 24, dtype=torch.long), 0)


def test_a_clip_folder_brings_the_processor_it_needs(pipe, published, tmp_path):
    pipe.clip.save_pretrained(tmp_path / "shared")
    pipe.clip_processor.save_pretrained(tmp_path / "shared")
    clip, processor = load_clip(tmp_path / "shared")
    assert torch.equal(clip.visual_projection.weight, pipe.clip.visual_projection.weight)
    assert type(processor) is type(pipe.clip_processor)
    for part in published:
        part.save_pretrained(tmp_path / "published")
    assert isinstance(load_clip(tmp_path / "published")[1], CLIPProcessor)


@pytest.mark.parametrize("failing", ["text", "image", "nan"])
def test_a_failing_judge_costs_the_ranking_and_not_the_pictures(failing):
    pipe = tiny_pipeline()
    calls = []

    def fail(module, inputs, output):
        calls.append(module)
        if failing == "nan":
            return torch.full_like(output, float("nan"))
        if failing == "text" or len(calls) > 2:
            raise RuntimeError("out of luck")
        return output

    module = pipe.clip.text_projection if failing == "text" else pipe.clip.visual_projection
    module.register_forward_hook(fail)
    with pytest.warns(IncompleteResultWarning, match="clip failed"):
        output = pipe(PROMPTS[0], num_candidates=8, num_images_per_prompt=5, seed=2, batch_size=2)
    assert len(output.images) == 5
    ranked = 4 if failing == "image" else 0
    assert [score is not None for score in output.clip_scores] == [True] * ranked + [False] * (5 - ranked)
    if failing != "image":
        whole = pipe.__class__(**(pipe.components | {"clip": None, "clip_processor": None}))
        whole.set_progress_bar_config(disable=True)
        assert whole(PROMPTS[0], num_images_per_prompt=5, seed=2).seeds == output.seeds


def candidate(index: int, score: float | None, prompt: int = 0) -> Candidate:
    grid = torch.full((2, 2), index)
    return Candidate(prompt, index, score, seed=index, indices=grid, pixels=torch.zeros(3, 4, 4))


def test_the_running_best_equal_the_best_of_all():
    torch.manual_seed(0)
    scores = [round(score, 1) for score in torch.rand(200).tolist()]  # with ties: the earlier one wins
    best = BestCandidates(num_prompts=1, keep=7)
    for index, score in enumerate(scores):
        best.offer(candidate(index, score))
    expected = sorted(range(200), key=lambda index: (-scores[index], index))[:7]
    assert [kept.candidate_index for kept in best] == expected
    assert best.num_offered == 200


def test_unranked_candidates_come_after_ranked_ones():
    best = BestCandidates(num_prompts=1, keep=3)
    for index, score in enumerate([None, -0.5, None, 0.2, None]):
        best.offer(candidate(index, score))
    assert [kept.candidate_index for kept in best] == [3, 1, 0]


def test_kept_candidates_do_not_hold_their_batch_in_memory():
    batch = torch.zeros(64, 3, 8, 8)
    best = BestCandidates(num_prompts=1, keep=1)
    best.offer(Candidate(0, 0, 1.0, 0, torch.zeros(64, 2, 2)[3], batch[3]))
    (kept,) = best
    assert kept.pixels.untyped_storage().nbytes() == 3 * 8 * 8 * 4
    assert kept.indices.untyped_storage().nbytes() == 2 * 2 * 4
