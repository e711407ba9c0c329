"""A run that was killed and resumed is the run that was not. The kills are real, in processes of their own."""

import json
import pickle
import signal

import pytest
import torch

from mosaics.training import ChangedSettingsError, CheckpointError, find_checkpoint
from mosaics.training.checkpointing import list_checkpoints
from mosaics.training.identity import run_settings
from mosaics.training.signals import EXIT_CODE_STOPPED
from training_programs import (
    PictureStream,
    SmallPictures,
    in_processes,
    signal_twice,
    small_model,
    small_run,
    train,
    train_and_kill,
    train_beside_another_run,
    train_with_a_full_disk,
    train_with_a_killed_reader,
)


def final_state(output_dir, step=14):
    """Digests of weights, average, optimizer and random generators, and the settings and averages being taken."""
    folder = output_dir / f"checkpoint-{step:08d}"
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"model.safetensors", "averaged/model.safetensors", "optimizer.safetensors", "rng-00000.safetensors"} < set(
        files
    )
    return files


def steps_taken(output_dir, rank=0):
    """The last time each step was taken: its samples and its loss."""
    lines = [json.loads(line) for line in (output_dir / f"trace-{rank}.jsonl").read_text().splitlines()]
    return lines, {line["step"]: line for line in lines}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("uninterrupted")
    assert in_processes(train_and_kill, str(output_dir)) == 0
    return output_dir


def test_three_kills_and_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, uninterrupted):
    # 5 steps an epoch, a checkpoint every 3: resumed at 3, at 3 again (twice in one epoch), and at 9.
    assert in_processes(train_and_kill, str(tmp_path), at_step=5) == -signal.SIGKILL
    assert in_processes(train_and_kill, str(tmp_path), in_save=(1, 5)) == -signal.SIGKILL
    assert in_processes(train_and_kill, str(tmp_path), at_step=10) == -signal.SIGKILL
    assert in_processes(train_and_kill, str(tmp_path)) == 0
    lines, last = steps_taken(tmp_path)
    starts = [line["step"] for before, line in zip([{"step": -1}, *lines], lines, strict=False)
              if line["step"] != before["step"] + 1]  # fmt: skip
    assert starts == [3, 3, 9]  # every kill cost at most the steps since the last checkpoint
    assert last == steps_taken(uninterrupted)[1]
    assert final_state(tmp_path) == final_state(uninterrupted)
    assert (tmp_path / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    rows, expected = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, uninterrupted)
    )
    assert [row.pop("images_per_second") > 0 for row in rows + expected]
    assert rows == expected and [row["step"] for row in rows] == [4, 8, 12, 14]


def test_the_comparison_would_notice_random_generators_that_were_not_restored(tmp_path, uninterrupted):
    assert in_processes(train_and_kill, str(tmp_path), at_step=5) == -signal.SIGKILL
    assert in_processes(train_and_kill, str(tmp_path), broken_restore=True) == 0
    ours, theirs = steps_taken(tmp_path)[1], steps_taken(uninterrupted)[1]
    assert [step["samples"] for step in ours.values()] == [step["samples"] for step in theirs.values()]
    assert ours[2] == theirs[2] and ours[3]["loss"] != theirs[3]["loss"]
    assert final_state(tmp_path)["model.safetensors"] != final_state(uninterrupted)["model.safetensors"]


def test_a_stream_read_by_a_worker_resumes_bit_for_bit(tmp_path):
    options = {"dataset": PictureStream(), "dataloader_num_workers": 1}
    assert in_processes(train_and_kill, str(tmp_path / "whole"), **options) == 0
    assert in_processes(train_and_kill, str(tmp_path / "cut"), at_step=7, **options) == -signal.SIGKILL
    assert in_processes(train_and_kill, str(tmp_path / "cut"), **options) == 0
    assert steps_taken(tmp_path / "cut")[0][7]["step"] == 6
    assert final_state(tmp_path / "cut") == final_state(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_in_progress_and_exits_with_the_documented_code(tmp_path, uninterrupted, number):
    assert in_processes(train_and_kill, str(tmp_path), at_step=4, number=number) == EXIT_CODE_STOPPED == 75
    assert [step for step, _ in list_checkpoints(tmp_path)] == [5, 3]  # no step is lost
    assert not (tmp_path / "model.safetensors").exists()
    train(tmp_path)
    assert final_state(tmp_path) == final_state(uninterrupted)


def test_a_second_signal_exits_at_once(tmp_path):
    assert in_processes(signal_twice, str(tmp_path)) == 128 + signal.SIGTERM
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3]


def test_a_full_disk_is_reported_with_the_bytes_needed_and_the_checkpoint_before_is_intact(tmp_path, uninterrupted):
    assert in_processes(train_with_a_full_disk, str(tmp_path), 5) == 0
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3]
    train(tmp_path)
    assert final_state(tmp_path) == final_state(uninterrupted)


def test_a_killed_reader_is_an_error_and_costs_no_checkpoint(tmp_path):
    assert in_processes(train_with_a_killed_reader, str(tmp_path)) == 0
    assert find_checkpoint(tmp_path, pytest.fail)[1]["step"] in (6, 9)  # batches are read up to two ahead


def test_resuming_falls_back_past_a_damaged_checkpoint_to_the_same_end(tmp_path, uninterrupted):
    train(tmp_path, max_steps=6, lr_decay_steps=14)
    path = tmp_path / "checkpoint-00000006" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    run = train(tmp_path)
    assert run.step == 14 and steps_taken(tmp_path)[0][6]["step"] == 3
    assert final_state(tmp_path) == final_state(uninterrupted)


def test_a_checkpoint_that_does_not_fit_leaves_the_live_model_untouched(tmp_path):
    train(tmp_path, max_steps=3)
    model = small_model(width=5)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit.*encoder.weight is \(6, 3, 3, 3\)"):
        small_run(tmp_path, model=model, max_steps=3, allow_changed=["all"])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_resuming_with_changed_settings_lists_them_and_can_be_allowed_by_name(tmp_path):
    train(tmp_path, max_steps=6)
    changed = {"learning_rate": 0.02, "max_steps": 9, "train_batch_size": 5, "logging_steps": 1}
    with pytest.raises(ChangedSettingsError) as caught:
        small_run(tmp_path, dataset=SmallPictures(augmented=True, seed=1), model=small_model(width=8), **changed)
    for expected in (
        "learning_rate: 0.01 in the checkpoint, 0.02 now",
        "lr_decay_steps: 6 in the checkpoint, 9 now",
        "samples_per_step: 4 in the checkpoint, 5 now",
        "model.width: 6 in the checkpoint, 8 now",
        "train_dataset: ",
    ):
        assert expected in str(caught.value)
    assert "logging_steps" not in str(caught.value)
    with pytest.raises(ChangedSettingsError, match="lr_decay_steps"):
        small_run(tmp_path, learning_rate=0.02, max_steps=9, allow_changed=["learning_rate"])
    run = train(tmp_path, learning_rate=0.02, max_steps=9, allow_changed=["learning_rate", "lr_decay_steps"])
    assert run.step == 9


def test_a_field_that_the_configuration_has_got_since_then_has_its_default_in_an_old_checkpoint(tmp_path, monkeypatch):
    def settings_before_the_field(*arguments, **named):
        return {name: value for name, value in run_settings(*arguments, **named).items() if name != "model.normalize"}

    with monkeypatch.context() as past:
        past.setattr("mosaics.training.run.run_settings", settings_before_the_field)
        train(tmp_path, max_steps=6)
    with pytest.raises(ChangedSettingsError, match=r"model\.normalize: True in the checkpoint, False now"):
        small_run(tmp_path, model=small_model(normalize=False), max_steps=6)
    assert train(tmp_path, max_steps=6).step == 6


def test_a_finished_run_trains_nothing_when_it_is_run_again(tmp_path):
    train(tmp_path, max_steps=3)
    lines = steps_taken(tmp_path)[0]
    assert train(tmp_path, max_steps=3).step == 3
    assert steps_taken(tmp_path)[0] == lines


def test_starting_anew_over_checkpoints_and_resuming_from_nowhere_are_refused(tmp_path):
    train(tmp_path, max_steps=3)
    with pytest.raises(ValueError, match="checkpoint-00000003 exists"):
        small_run(tmp_path, max_steps=3, resume_from_checkpoint="none")
    with pytest.raises(ValueError, match="'nowhere' is none of them"):
        small_run(tmp_path, max_steps=3, resume_from_checkpoint="nowhere")
    checkpoint = str(tmp_path / "checkpoint-00000003")
    assert small_run(tmp_path / "other", max_steps=3, resume_from_checkpoint=checkpoint).step == 3


def test_nothing_in_a_checkpoint_folder_is_executed(tmp_path):
    train(tmp_path, max_steps=3)
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    folder = tmp_path / "checkpoint-00000003"
    for name in ("optimizer.bin", "random_states_0.pkl", "custom_checkpoint_0.pkl", "pytorch_model.bin", "state.pt"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    assert small_run(tmp_path, max_steps=3).step == 3
    for name in ("optimizer.safetensors", "rng-00000.safetensors", "state.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(CheckpointError, match=name):
            small_run(tmp_path, max_steps=3)
        (folder / name).write_bytes(content)
    assert not canary.exists()


def test_two_runs_cannot_write_to_one_folder_at_a_time(tmp_path):
    iterator = iter(small_run(tmp_path))
    next(iterator)
    assert in_processes(train_beside_another_run, str(tmp_path)) == 0
    iterator.close()
    assert in_processes(train_and_kill, str(tmp_path), max_steps=1) == 0
