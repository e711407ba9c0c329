"""Pictures on disk: sheets, and folders that can be left half-done."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from mosaics import DallePipeline
from mosaics.data import load_captioned_images, to_pixel_values
from mosaics.pipelines.many_pictures import draw_many
from testing_utils import tiny_pipeline

PROMPTS = ("a lion", "two stars", "a small red house")


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def assert_equal_folders(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """The same settings, lines and pictures; a batch of another size rounds the decoder's pixels otherwise."""
    assert found.keys() == expected.keys() and found["generation.json"] == expected["generation.json"]
    lines, wanted = ([json.loads(line) for line in part["metadata.jsonl"].splitlines()] for part in (found, expected))
    for row, other in zip(lines, wanted, strict=True):
        assert row.pop("clip_score") == pytest.approx(other.pop("clip_score"), abs=1e-4)
        assert row == other
        picture, same = (
            np.array(Image.open(io.BytesIO(part[row["file_name"]]))).astype(int) for part in (found, expected)
        )
        assert abs(picture - same).max() <= 1


@pytest.fixture
def draw(run, checkpoints):
    def call(*arguments):
        return run("generate", "--checkpoint", checkpoints / "dalle", *arguments)

    return call


def test_a_sheet_has_a_row_for_each_prompt(draw, tmp_path):
    path = tmp_path / "new" / "sheet.png"
    code, out, _ = draw(*PROMPTS[:2], "--num_candidates", 3, "--num_images_per_prompt", 2, "--output", path, "--json")
    assert code == 0
    with Image.open(path) as sheet:
        assert sheet.size == (4 * (2 * 18 + 2), 4 * (2 * 18 + 2))
    pictures = json.loads(out)["pictures"]
    assert [picture["prompt"] for picture in pictures] == ["a lion", "a lion", "two stars", "two stars"]
    assert pictures[0]["clip_score"] >= pictures[1]["clip_score"]


def test_a_folder_holds_what_the_pipeline_draws_and_what_redraws_it(draw, checkpoints, tmp_path):
    folder = tmp_path / "pictures"
    assert draw(*PROMPTS, "--num_candidates", 4, "--seed", 5, "--output", folder)[0] == 0
    pipe = DallePipeline.from_pretrained(checkpoints / "dalle")
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(list(PROMPTS), num_candidates=4, seed=5)
    for row, image, seed, score in zip(
        rows_of(folder), expected.images, expected.seeds, expected.clip_scores, strict=True
    ):
        with Image.open(folder / row["file_name"]) as found:
            assert abs(np.array(found).astype(int) - np.array(image)).max() <= 1
        assert int(row["seed"]) == seed and row["clip_score"] == pytest.approx(score, abs=1e-5)
        again = pipe(row["prompt"], seed=int(row["seed"])).images[0]
        assert abs(np.array(again).astype(int) - np.array(image)).max() <= 1
        assert 0 <= row["candidate"] < 4


def test_the_folder_is_a_data_set(draw, tmp_path):
    folder = tmp_path / "pictures"
    draw(*PROMPTS, "--num_candidates", 1, "--output", folder)
    table = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert table["prompt"] == list(PROMPTS) and table[1]["image"].size == (16, 16)
    assert [int(seed) for seed in table["seed"]] == [int(row["seed"]) for row in rows_of(folder)]  # none was rounded
    data = load_captioned_images(folder, 16)
    assert [data[number]["caption"] for number in range(3)] == list(PROMPTS)


@pytest.mark.parametrize("damage", ["truncated", "removed", "no line", "torn line", "killed while writing"])
def test_a_half_done_folder_is_completed_and_equals_one_drawn_at_once(draw, tmp_path, damage):
    folder, arguments = tmp_path / "pictures", (*PROMPTS, "--num_candidates", 1, "--output")
    draw(*arguments, folder)
    whole = contents(folder)
    victim, metadata = folder / "00001-0.png", folder / "metadata.jsonl"
    lines = metadata.read_text().splitlines(keepends=True)
    if damage == "truncated":
        victim.write_bytes(whole[victim.name][:-20])
    elif damage == "removed":
        victim.unlink()
    elif damage == "no line":
        metadata.write_text("".join(lines[:1]))
    elif damage == "torn line":
        metadata.write_text(lines[0] + lines[1][:30])
    else:
        victim.unlink()
        (folder / f".{victim.name}.123").write_bytes(whole[victim.name][:50])
    untouched = (folder / "00000-0.png").stat().st_mtime_ns
    assert draw(*arguments, folder)[0] == 0
    assert_equal_folders(contents(folder), whole)
    assert [path.name for path in folder.glob(".*")] == [".lock"]
    assert (folder / "00000-0.png").stat().st_mtime_ns == untouched
    assert "0 candidates drawn now" in draw(*arguments, folder)[1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--seed", 1], "seed was 0, now 1"),
        (["--num_candidates", 2], "num_candidates was 1, now 2"),
        (["--temperature", 0.5], "sampling"),
        (["another lion"], "requests"),
    ],
)
def test_a_folder_of_other_settings_is_left_as_it_is(draw, tmp_path, change, named):
    folder = tmp_path / "pictures"
    draw("a lion", "--num_candidates", 1, "--output", folder)
    before = contents(folder)
    code, _, err = draw("a lion", "--num_candidates", 1, "--output", folder, *change)
    assert code == 1 and named in err and contents(folder) == before


def test_another_checkpoint_does_not_go_on_with_a_folder(draw, run, tmp_path):
    draw("a lion", "--num_candidates", 1, "--output", tmp_path / "pictures")
    tiny_pipeline(hidden_size=16).save_pretrained(tmp_path / "other")
    arguments = ("a lion", "--num_candidates", 1, "--output", tmp_path / "pictures")
    code, _, err = run("generate", "--checkpoint", tmp_path / "other", *arguments)
    assert code == 1 and "checkpoint was" in err


def test_a_folder_of_something_else_is_not_written_to(draw, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = draw("a lion", "--output", tmp_path)
    assert (
        code == 1
        and "notes.txt" in err
        and [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["notes.txt"]
    )


def test_prompts_come_from_a_file_and_from_stdin(draw, tmp_path, monkeypatch):
    (tmp_path / "prompts.txt").write_text("a lion\n\ntwo stars\n")
    path = tmp_path / "sheet.png"
    for arguments in (["--prompts_file", tmp_path / "prompts.txt"], ["-"], ["--prompts_file", "-"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("a lion\n\ntwo stars\n"))
        code, out, _ = draw(*arguments, "--num_candidates", 1, "--output", path, "--json")
        assert code == 0 and [row["prompt"] for row in json.loads(out)["pictures"]] == ["a lion", "two stars"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n \n", "holds no prompts"), (b"a lion\xff", "UTF-8"), (None, "prompts.txt")]
)
def test_a_bad_prompts_file_is_named(draw, tmp_path, content, message):
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    code, _, err = draw("--prompts_file", tmp_path / "prompts.txt", "--output", tmp_path / "x.png")
    assert code == 1 and message in err and "prompts.txt" in err


def test_a_bad_prompt_is_found_before_any_picture_is_drawn(draw, tmp_path):
    code, _, err = draw("a lion", " ", "--output", tmp_path / "pictures")
    assert code == 1 and "prompt[1] is empty" in err and not (tmp_path / "pictures").exists()
    code, _, err = draw("word " * 100, "--output", tmp_path / "x.png")
    assert code == 1 and "tokens" in err and not (tmp_path / "x.png").exists()


def test_classes_are_asked_for_by_number_or_name(run, checkpoints, tmp_path):
    folder = tmp_path / "classes"
    arguments = ("generate", "--checkpoint", checkpoints / "classes", "--output", folder)
    assert run(*arguments, "--class_label", 1, "--class_label", "cat", "--num_images_per_prompt", 2)[0] == 0
    rows = rows_of(folder)
    assert [(row["class_label"], row["class_name"]) for row in rows] == [(1, "dog")] * 2 + [(0, "cat")] * 2
    code, _, err = run(*arguments, "--class_label", 9)
    assert code == 1 and "class_labels[0]" in err
    code, _, err = run(*arguments, "a lion")
    assert code == 2 and "--class_label" in err


@pytest.mark.parametrize("together", [1, 2, 3])
def test_what_is_drawn_together_changes_no_picture(together):
    pipe = tiny_pipeline()
    expected = pipe(list(PROMPTS), num_candidates=3, num_images_per_prompt=2, seed=9, output_type="pt")
    calls = draw_many(pipe, dict(enumerate(PROMPTS)), num_candidates=3, num_images=2, seed=9, together=together)
    drawn = [picture for call in calls for pictures in call.values() for picture in pictures]
    pixels = torch.stack([picture.pixels for picture in drawn])
    torch.testing.assert_close(pixels, expected.images, atol=1e-5, rtol=0)
    assert [picture.seed for picture in drawn] == expected.seeds
    assert [picture.number for picture in drawn] == [0, 0, 1, 1, 2, 2]


def test_a_request_left_out_changes_no_other():
    pipe = tiny_pipeline()
    expected = pipe(list(PROMPTS), seed=9, output_type="pt")
    (call,) = draw_many(pipe, {2: PROMPTS[2]}, seed=9)
    torch.testing.assert_close(call[2][0].pixels, expected.images[2], atol=1e-5, rtol=0)
    assert call[2][0].seed == expected.seeds[2]


def test_an_interruption_leaves_whole_pictures_and_the_same_command_goes_on(draw, tmp_path, monkeypatch):
    folder, arguments = tmp_path / "pictures", (*PROMPTS, "--num_candidates", 33, "--batch_size", 30)
    draw(*arguments, "--output", tmp_path / "expected")
    calls, decode = [], DallePipeline.codes_to_pixels

    def interrupted(self, indices):
        calls.append(len(indices))
        if len(calls) == 4:  # in the middle of the second prompt
            raise KeyboardInterrupt
        return decode(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(DallePipeline, "codes_to_pixels", interrupted)
        assert draw(*arguments, "--output", folder)[0] == 130
    assert [row["prompt"] for row in rows_of(folder)] == ["a lion"]
    assert draw(*arguments, "--output", folder)[0] == 0
    assert_equal_folders(contents(folder), contents(tmp_path / "expected"))


def test_the_embedded_checkpoint_draws_without_arguments(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("generate", "a lion on a blue background", "--num_candidates", 2)
    assert code == 0 and "2 candidates" in out
    with Image.open(tmp_path / "outputs" / "generated.png") as sheet:
        assert sheet.size == (4 * 68, 4 * 68)
        assert to_pixel_values(sheet, 16).std() > 0.1
