"""The scripts that train priors over codes run for a few steps on a small folder of codes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from example_scripts import run_script
from example_scripts import training as example_training
from mosaics import VQVAE, PixelCNN, VQVAEConfig, VQVAEPipeline, WaveNet
from mosaics.data import CodeGrid, CodesDescription, CodesError, CodesWriter
from mosaics.models.codebook_identity import codebook_id
from testing_utils import tiny_dvae, tiny_tokenizer

PIXELCNN = '{"hidden_size": 16, "num_layers": 3, "num_attention_layers": 1, "num_attention_heads": 2}'
WAVENET = '{"hidden_size": 16, "skip_size": 16, "num_stacks": 1, "layers_per_stack": 3}'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """24 grids of a tiny discrete VAE, alternately a cat and a dog, and where the priors may be put."""
    folder, dvae = tmp_path_factory.mktemp("priors"), tiny_dvae()
    dvae.save_pretrained(folder / "dvae")
    write_codes(folder / "codes", codebook_id(dvae), dvae.config.num_embeddings)
    return folder


def write_codes(folder: Path, identity: str, num_embeddings: int) -> None:
    generator = torch.Generator().manual_seed(0)
    description = CodesDescription(CodeGrid(identity, num_embeddings, (4, 4)), num_samples=24, shard_size=10)
    writer = CodesWriter(folder, description, rank=0, world_size=1)
    for shard in writer:
        count = shard.stop - shard.start
        names = ["cat" if number % 2 else "dog" for number in range(count)]
        shard.append(torch.randint(num_embeddings, (count, 4, 4), generator=generator), names)
    writer.finish()


def training(folder: Path, output_dir: Path, steps: int, model: str) -> list[str]:
    return [
        *("--codes", str(folder / "codes"), "--output_dir", str(output_dir), "--max_steps", str(steps)),
        *("--train_batch_size", "4", "--num_eval_samples", "6", "--eval_steps", "2", "--logging_steps", "1"),
        *("--learning_rate", "1e-2", "--lr_schedule", "constant", "--warmup_steps", "1", "--checkpointing_steps", "2"),
        *("--progress_bar", "false", "--cpu", "true", "--model", model),
    ]


def losses(output_dir: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    assert {"bits_per_code", "eval_loss", "eval_bits_per_code"} <= set().union(*rows)
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.parametrize(
    ("script", "model", "extra"),
    [
        ("train_pixelcnn.py", PIXELCNN, ["--classes", "captions"]),
        ("train_wavenet.py", WAVENET, ["--crop_length", "10", "--classes", "captions"]),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".py") else "",
)
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(script, model, extra, trained, tmp_path):
    run_script(script, *training(trained, tmp_path / "whole", 4, model), *extra)
    run_script(script, *training(trained, tmp_path / "parts", 2, model), *extra)
    allowed = ["--allow_changed", "max_steps"]
    run_script(script, *training(trained, tmp_path / "parts", 4, model), *extra, *allowed)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 4
    if script == "train_pixelcnn.py":
        prior = PixelCNN.from_pretrained(tmp_path / "whole")
        assert prior.generate(class_labels=torch.tensor([0, 1]), seed=0).shape == (2, 4, 4)
    else:
        prior = WaveNet.from_pretrained(tmp_path / "whole")
        assert prior.generate(length=16, class_labels=torch.tensor([0, 1]), seed=0).shape == (2, 16)
    assert prior.config.id2label == {0: "cat", 1: "dog"}


def test_samples_are_decoded_to_pictures(trained, tmp_path):
    arguments = training(trained, tmp_path, 2, PIXELCNN)
    run_script("train_pixelcnn.py", *arguments, "--dvae", str(trained / "dvae"))
    with Image.open(next((tmp_path / "images").glob("samples-*.png"))) as grid:
        assert grid.width > 64
    assert PixelCNN.from_pretrained(tmp_path).config.num_classes is None


def test_several_codes_at_a_position_are_encoded_learnt_and_drawn(tmp_path):
    fields = {"image_size": 64, "num_embeddings": 16, "hidden_size": 8, "residual_hidden_size": 4, "embedding_dim": 4}
    VQVAE(VQVAEConfig(num_downsamples=4, latents_per_position=3, **fields)).save_pretrained(tmp_path / "vqvae")
    run_script(
        "encode_codes.py",
        *("--vqvae", str(tmp_path / "vqvae"), "--num_samples", "24", "--output_dir", str(tmp_path / "codes")),
    )
    arguments = training(tmp_path, tmp_path / "prior", 2, PIXELCNN)
    run_script("train_pixelcnn.py", *arguments, "--vqvae", str(tmp_path / "vqvae"))
    pipe = VQVAEPipeline.from_pretrained(tmp_path / "prior" / "pipeline")
    assert pipe(seed=0).indices[0].shape == (1, 4, 4, 3)


def test_a_dalle_is_not_trained_on_codes_without_captions(trained, tmp_path):
    dvae, tokenizer = tiny_dvae(), tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    description = CodesDescription(CodeGrid(codebook_id(dvae), dvae.config.num_embeddings, (4, 4)), num_samples=8)
    writer = CodesWriter(tmp_path / "silent", description)
    for shard in writer:
        shard.append(torch.zeros(8, 4, 4, dtype=torch.int64))
    writer.finish()
    with pytest.raises(CodesError, match=r"silent has no captions, which are needed to train a DALL-E: encode"):
        run_script(
            "train_dalle.py",
            *example_training(tmp_path / "out"),
            *("--codes", str(tmp_path / "silent"), "--dvae", str(trained / "dvae")),
            *("--tokenizer", str(tmp_path / "tokenizer")),
        )
    assert not (tmp_path / "out").exists()


def test_codes_of_another_tokenizer_are_refused(trained, tmp_path):
    tiny_dvae(num_embeddings=16).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="belong to codebook"):
        run_script(
            "train_pixelcnn.py",
            *training(trained, tmp_path / "out", 2, PIXELCNN),
            *("--dvae", str(tmp_path / "other")),
        )


def test_a_wavenet_is_conditioned_on_the_slower_sequence_above_it(tmp_path):
    levels = (CodeGrid("slow", 8, (4,)), CodeGrid("fast", 16, (12,)))
    writer = CodesWriter(tmp_path / "codes", CodesDescription(levels, num_samples=12))
    generator = torch.Generator().manual_seed(0)
    for shard in writer:
        shard.append(tuple(torch.randint(g.num_embeddings, (12, *g.size), generator=generator) for g in levels))
    writer.finish()
    run_script(
        "train_wavenet.py", *training(tmp_path, tmp_path / "out", 2, WAVENET), "--level", "2", "--crop_length", "5"
    )
    config = WaveNet.from_pretrained(tmp_path / "out").config
    assert (config.condition_num_embeddings, config.condition_factor, config.num_embeddings) == (8, 3, 16)
    assert config.codebook_id == "fast" and config.num_classes is None
