import json
import sys
from pathlib import Path

import torch

from mosaics.cards.run_folder import read_sessions
from mosaics.training.sessions import SessionRecord, current_command

CPU = torch.device("cpu")


def run(folder, first, *steps):
    record = SessionRecord(folder, CPU, 1)
    record.begin(first)
    for step in steps:
        record.write(step)


def test_every_time_the_command_is_run_is_recorded_up_to_its_last_checkpoint(tmp_path):
    run(tmp_path, 0, 10, 20)
    run(tmp_path, 20, 30)
    run(tmp_path, 30, 30)  # a finished run, started again
    sessions = read_sessions(tmp_path)
    assert [(session.first_step, session.last_step) for session in sessions] == [(0, 20), (20, 30)]
    assert all(session.seconds >= 0 and f"torch {torch.__version__}" in session.software for session in sessions)
    run(tmp_path, 10, 15)  # from an earlier checkpoint: what came after it does not count
    assert [session.last_step for session in read_sessions(tmp_path)] == [15]


def test_a_damaged_record_does_not_stop_a_run(tmp_path):
    (tmp_path / "sessions.json").write_text("[{")
    run(tmp_path, 0, 10)
    assert [session.last_step for session in read_sessions(tmp_path)] == [10]
    assert json.loads((tmp_path / "sessions.json").read_text())[0]["num_processes"] == 1


def test_the_command_is_the_script_as_it_was_called_without_tokens(tmp_path, monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    script = tmp_path / "train.py"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script), "--seed", "1", "--name", "a b", "--token", "hf_abcdefgh123"])
    assert current_command() == "python train.py --seed 1 --name 'a b' --token '[token]'".replace(
        "'[token]'", "[token]"
    )
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert current_command().startswith(f"accelerate launch {tmp_path.name}/train.py --seed 1")
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert current_command() is None
    monkeypatch.setattr(sys, "argv", [str(Path(tmp_path) / "missing.py")])
    assert current_command() is None
