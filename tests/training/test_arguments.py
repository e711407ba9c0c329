import re
from dataclasses import dataclass, field

import pytest
from huggingface_hub.dataclasses import strict

from mosaics.training import TrainingConfig, parse_arguments


@strict
@dataclass
class ScriptArguments:
    dataset: str = field(metadata={"help": "Needed."})
    kl_weight: float = 6.6
    patterns: list[str] | None = None
    verbose: bool = True


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return ["--recipe", str(path)]


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path):
    lines = "dataset: emoji\nlearning_rate: 1e-4\nmax_steps: 7\nkl_weight: 2\npatterns: [row, column]\nverbose: false"
    args = [*recipe(tmp_path, lines), "--max_steps", "9"]
    config, script = parse_arguments(TrainingConfig, ScriptArguments, args=args)
    assert (config.max_steps, config.learning_rate, config.train_batch_size) == (9, 1e-4, 16)
    assert script == ScriptArguments("emoji", 2.0, ["row", "column"], False)


def test_none_can_be_said_on_the_command_line_and_in_a_recipe(tmp_path):
    args = [*recipe(tmp_path, "max_grad_norm: null"), "--ema_decay", "none"]
    (config,) = parse_arguments(TrainingConfig, args=args)
    assert config.ema_decay is None and config.max_grad_norm is None


def test_every_default_survives_the_command_line():
    assert parse_arguments(TrainingConfig, args=[]) == (TrainingConfig(),)


def test_the_types_of_a_dataclass_are_still_checked_after_it_was_parsed():
    parse_arguments(TrainingConfig, args=[])
    assert TrainingConfig(ema_decay=None).ema_decay is None
    with pytest.raises(Exception, match="max_steps"):
        TrainingConfig(max_steps="10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_stepz: 3", "max_stepz.*did you mean 'max_steps'"),
        ("max_steps: many", "max_steps.*int"),
        ("max_steps: -3", "max_steps must be at least 1, got -3"),
        ("- max_steps", "mapping"),
        ("max_steps: [", "not valid YAML"),
        ("nonfinite: ignore", "nonfinite.*ignore"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path, capsys, text, message):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(TrainingConfig, args=recipe(tmp_path, text))
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--learning_rat", "1"], "did you mean --learning_rate"),
        (["--max_steps", "ten"], "--max_steps"),
        (["--max_steps", "0"], "max_steps must be at least 1, got 0"),
        (["--ema_decay", "1.5"], "ema_decay must be in \\[0, 1\\), got 1.5"),
        (["--learning_rate", "nan"], "learning_rate must be finite"),
        (["--recipe", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
        (["--mixed_precision", "fp8"], "--mixed_precision"),
    ],
)
def test_a_wrong_command_line_is_refused_by_name(capsys, args, message):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(TrainingConfig, args=args)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_a_required_argument_may_come_from_the_recipe_but_must_come(tmp_path, capsys):
    assert parse_arguments(ScriptArguments, args=recipe(tmp_path, "dataset: x"))[0].dataset == "x"
    with pytest.raises(SystemExit):
        parse_arguments(ScriptArguments, args=[])
    assert "--dataset" in capsys.readouterr().err


def test_one_name_in_two_dataclasses_is_an_error():
    @dataclass
    class Other:
        max_steps: int = 3

    with pytest.raises(ValueError, match=r"max_steps.*TrainingConfig.*Other"):
        parse_arguments(TrainingConfig, Other, args=[])
