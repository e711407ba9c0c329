"""`mosaics info`, `mosaics reconstruct` and `mosaics evaluate`."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mosaics import DiscreteVAE, default_checkpoint
from mosaics.data import to_pixel_values
from mosaics.models.codebook_identity import codebook_id


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data set of four pictures."""
    folder = tmp_path_factory.mktemp("data") / "test"
    folder.mkdir()
    random, rows = np.random.default_rng(0), []
    for number in range(4):
        small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((20, 16)).save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": "a lion"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows))
    return folder


def test_info_of_the_embedded_checkpoint_says_what_is_in_it(run):
    code, out, _ = run("info", "--json")
    found = json.loads(out)
    dvae = DiscreteVAE.from_pretrained(default_checkpoint(), subfolder="dvae")
    assert code == 0 and found["class"] == "DallePipeline"
    assert found["models"]["dvae"]["parameters"] == sum(p.numel() for p in dvae.parameters())
    assert found["models"]["dvae"]["codes"] == {"grid": ["16 x 16"], "codebook": [codebook_id(dvae)]}
    assert found["models"]["transformer"]["sizes"]["codebook_id"] == codebook_id(dvae)
    assert found["bytes"] == sum(file["bytes"] for file in found["files"].values())
    assert "dvae/model.safetensors" in found["files"]
    words = run("info")[1]
    assert codebook_id(dvae) in words and found["sha256"] in words


def test_info_knows_levels_and_single_models(run, checkpoints):
    found = json.loads(run("info", checkpoints / "classes", "--json")[1])
    assert found["models"]["vqvae"]["codes"]["grid"] == ["2 x 2", "4 x 4"]
    assert len(set(found["models"]["vqvae"]["codes"]["codebook"])) == 2
    found = json.loads(run("info", checkpoints / "dvae", "--json")[1])
    assert found["class"] == "DiscreteVAE" and found["models"][""]["sizes"]["num_embeddings"] == 32


def test_the_hash_is_of_the_content_wherever_it_lies(run, checkpoints, tmp_path):
    shutil.copytree(checkpoints / "dvae", tmp_path / "copy")
    first, second = (
        json.loads(run("info", place, "--json")[1])["sha256"] for place in (checkpoints / "dvae", tmp_path / "copy")
    )
    assert first == second
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert json.loads(run("info", tmp_path / "copy", "--json")[1])["sha256"] != first


def test_info_names_a_damaged_file(run, checkpoints, tmp_path):
    shutil.copytree(checkpoints / "dvae", tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    code, _, err = run("info", tmp_path / "copy")
    assert code == 1 and "model.safetensors" in err
    code, _, err = run("info", tmp_path)
    assert code == 1 and "no checkpoint" in err


def test_reconstructions_lie_beside_their_pictures(run, checkpoints, pictures, tmp_path):
    arguments = ("reconstruct", pictures, "--checkpoint", checkpoints / "dvae", "--codes", "--batch_size", 3)
    code, out, _ = run(*arguments, "--output", tmp_path / "seen", "--json")
    rows = json.loads(out)["pictures"]
    assert code == 0 and len(rows) == 4
    dvae = DiscreteVAE.from_pretrained(checkpoints / "dvae").eval()
    pixels = to_pixel_values(pictures / "2.png", 16)
    with torch.no_grad():
        indices = dvae.encode(pixels[None])
        restored = dvae.decode(indices)[0]
    error = float((pixels - restored).double().square().mean())
    assert rows[2]["psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    with np.load(tmp_path / "seen" / "2.npz") as codes:
        assert np.array_equal(codes["indices"], indices[0].numpy())
    with Image.open(tmp_path / "seen" / "2.png") as pair:
        assert pair.size == (2 * 18 + 2, 20)
        left = torch.from_numpy(np.array(pair)[2:18, 2:18]).permute(2, 0, 1) / 255
    torch.testing.assert_close(left, pixels)
    lines = (tmp_path / "seen" / "reconstructions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_the_codes_of_all_levels_are_written(run, checkpoints, pictures, tmp_path):
    run("reconstruct", pictures / "0.png", "--checkpoint", checkpoints / "classes", "--output", tmp_path, "--codes")
    with np.load(tmp_path / "0.npz") as codes:
        assert {name: grid.shape for name, grid in codes.items()} == {"indices_0": (2, 2), "indices_1": (4, 4)}


def test_one_unreadable_picture_costs_itself_and_the_exit_code(run, checkpoints, pictures, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    (folder / "more").mkdir()
    shutil.copy(folder / "0.png", folder / "more" / "0.png")  # another picture of the same name
    code, out, err = run("reconstruct", folder, "--checkpoint", checkpoints / "dvae", "--output", tmp_path / "seen")
    assert code == 1 and "1.png" in err
    written = sorted(path.name for path in (tmp_path / "seen").glob("*.png"))
    assert written == ["0-2.png", "0.png", "2.png", "3.png"] and len(out.splitlines()) == 4


def test_a_missing_picture_and_a_checkpoint_without_codes_are_named(run, checkpoints, pictures, tmp_path):
    code, _, err = run("reconstruct", tmp_path / "no.png", "--checkpoint", checkpoints / "dvae")
    assert code == 1 and "no.png" in err
    code, _, err = run("reconstruct", pictures, "--checkpoint", checkpoints / "dalle" / "transformer")
    assert code == 1 and "DalleTransformer" in err


def test_evaluate_measures_both_halves_of_a_pipeline(run, checkpoints, pictures, tmp_path):
    report = tmp_path / "report.json"
    arguments = (
        "evaluate",
        checkpoints / "dalle",
        "--dataset",
        pictures.parent,
        "--num_prompts",
        2,
        "--output",
        report,
    )
    code, out, _ = run(*arguments)
    assert code == 0 and "reconstruction of" in out and "generation of" in out
    reconstruction, generation = json.loads(report.read_text())
    assert reconstruction["num_images"] == 4 and reconstruction["metrics"]["psnr"] > 0
    assert reconstruction["metrics"]["rfid"] is None and reconstruction["remarks"]["rfid"]
    assert generation["num_images"] == 2 and generation["metrics"]["clip_score"] is not None


def test_evaluate_does_what_it_was_asked_for_and_no_more(run, checkpoints, pictures):
    arguments = ("evaluate", checkpoints / "dvae", "--dataset", pictures.parent, "--json")
    (found,) = json.loads(run(*arguments, "--metrics", "psnr", "--metrics", "perplexity")[1])
    assert list(found["metrics"]) == ["psnr", "perplexity"]
    code, _, err = run(*arguments, "--kind", "generation")
    assert code == 1 and "model_index.json" in err
    code, _, err = run(*arguments, "--metrics", "clip_score")
    assert code == 1 and "clip_score" in err
    code, _, err = run("evaluate", checkpoints / "dvae", "--dataset", pictures.parent / "nothing")
    assert code == 1 and "nothing" in err
