"""The scripts that train image tokenizers run for a few steps, and what they write loads."""

import json

import pytest
import torch

from emoji.scenes import EmojiScenes
from example_scripts import SCENES, run_script, training
from mosaics import VQVAE, VQVAE2, DiscreteVAE, DiscreteVAEConfig, PixelCNN, VQVAEConfig

SMALL = '{"num_embeddings": 16, "embedding_dim": 8, "hidden_size": 16, "residual_hidden_size": 8}'


@pytest.mark.parametrize(
    ("script", "model_class", "terms"),
    [
        ("train_vqvae.py", VQVAE, {"codebook_loss", "commitment_loss", "perplexity", "codebook_usage"}),
        ("train_vqvae2.py", VQVAE2, {"perplexity_0", "perplexity_1", "codebook_usage_0", "codebook_usage_1"}),
    ],
)
def test_a_vqvae_trains_logs_its_health_and_loads(script, model_class, terms, tmp_path):
    run_script(script, *training(tmp_path), "--model", SMALL)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert terms | {"reconstruction_loss", "eval_psnr"} <= set().union(*rows)
    assert next((tmp_path / "images").glob("reconstructions-*.png")).stat().st_size > 0
    model = model_class.from_pretrained(tmp_path).eval()
    pictures = torch.rand(1, 3, 64, 64)
    assert model.decode(model.encode(pictures)).shape == pictures.shape


def test_a_vqvae_starts_as_transform_code_trains_its_decoder_and_then_the_whole(tmp_path):
    fields = {"num_embeddings": 8, "embedding_dim": 12, "latents_per_position": 4, "separate_codebooks": True}
    fields |= {"num_downsamples": 2, "hidden_size": 96, "residual_hidden_size": 4, "quantizer": "ema"}
    network = ("--model", json.dumps(fields), "--image_size", "16", "--ema_decay", "0")
    start = ("--principal_images", "16", "--decoder_only", "true")
    run_script("train_vqvae.py", *training(tmp_path / "decoder"), *network, *start)
    first = VQVAE(VQVAEConfig(image_size=16, **fields))
    data = EmojiScenes("train", size=16, **json.loads(SCENES))
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:16].tolist()
    first.initialize_from(torch.stack([data[index]["pixel_values"] for index in chosen]))
    decoder = VQVAE.from_pretrained(tmp_path / "decoder")
    linear = first.encoder.output.weight != 0  # the other channels are random
    assert linear.any()
    torch.testing.assert_close(decoder.encoder.output.weight[linear], first.encoder.output.weight[linear])
    assert not torch.equal(decoder.decoder.input.weight, first.decoder.input.weight)

    run_script("train_vqvae.py", *training(tmp_path / "whole"), *network, "--vqvae", str(tmp_path / "decoder"))
    whole = VQVAE.from_pretrained(tmp_path / "whole")
    moved = (whole.encoder.output.weight - decoder.encoder.output.weight).abs().max()
    assert 0 < moved < 0.01  # two steps of 1e-3
    with pytest.raises(ValueError, match="shape"):
        run_script(
            "train_vqvae.py",
            *training(tmp_path / "other"),
            *("--vqvae", str(tmp_path / "decoder"), "--image_size", "16"),
            *("--model", json.dumps(fields | {"num_embeddings": 9})),
        )


def test_codes_of_a_vqvae_are_written_and_a_prior_trained_on_them(tmp_path):
    vqvae, codes = ["--dvae", str(tmp_path / "vqvae")], str(tmp_path / "codes")
    run_script("train_vqvae.py", *training(tmp_path / "vqvae"), "--model", SMALL)
    run_script(
        "encode_codes.py",
        *("--recipe", "none", "--output_dir", codes, *vqvae, "--dataset_options", SCENES, "--num_samples", "12"),
    )
    run_script(
        "train_pixelcnn.py",
        *("--codes", codes, *vqvae, "--output_dir", str(tmp_path / "prior"), "--max_steps", "2", "--eval_steps", "2"),
        *("--train_batch_size", "4", "--num_eval_samples", "4", "--progress_bar", "false", "--cpu", "true"),
        *("--model", '{"hidden_size": 16, "num_layers": 2, "num_attention_layers": 0}'),
    )
    assert PixelCNN.from_pretrained(tmp_path / "prior").config.num_embeddings == 16
    assert next((tmp_path / "prior" / "images").glob("*.png")).stat().st_size > 0


def test_training_the_decoder_only_leaves_the_encoder_as_it_starts(tmp_path):
    fields = {"num_embeddings": 16, "codebook_dim": 64, "hidden_size": 64, "num_groups": 1, "patch_size": 4}
    fields |= {"identity_start": True}
    run_script(
        "train_dvae.py",
        *training(tmp_path, steps=3),
        *("--model", json.dumps(fields), "--kmeans_images", "8", "--decoder_only", "true", "--kl_weight", "0"),
    )
    trained = DiscreteVAE.from_pretrained(tmp_path)
    torch.manual_seed(0)
    start = DiscreteVAE(DiscreteVAEConfig(image_size=64, **fields))
    for name, weight in start.encoder.named_parameters():
        if "res_path" not in name and "output" not in name:  # random, and the codes of k-means
            torch.testing.assert_close(trained.encoder.get_parameter(name), weight, msg=name)
    assert not torch.equal(trained.decoder.output.weight, start.decoder.output.weight)
    for name, weight in trained.encoder.named_parameters():
        if name.endswith("res_path.3.weight"):
            assert not weight.any()
