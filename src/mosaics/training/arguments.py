"""Command-line arguments and recipes."""

import argparse
import dataclasses
import difflib
import json
import os
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

__all__ = ["parse_arguments"]


def parse_arguments(
    *dataclass_types: type,
    args: Sequence[str] | None = None,
    description: str | None = None,
    default_recipe: str | os.PathLike | None = None,
) -> tuple[Any, ...]:
    r"""Parses the command line into dataclasses, with a YAML file of settings below it.

    Every field of the dataclasses is an argument `--field_name`. `--recipe recipe.yaml` reads settings from a flat
    YAML mapping; the command line wins over the recipe, the recipe over the defaults. Names are never abbreviated,
    and a name that belongs to no dataclass is an error in both places. `none` (YAML: `null`) stands for None where a
    number may be None: `--ema_decay none`.

    Args:
        dataclass_types: Dataclasses, for example [`TrainingConfig`] and one of the script.
        args: Arguments to parse; `sys.argv[1:]` by default.
        description: Printed by `--help`.
        default_recipe: The recipe when `--recipe` names none, if the file exists; `--recipe none` goes without.

    Returns:
        One instance for each dataclass, in order.

    Raises:
        SystemExit: With code 2 and a message on stderr, when the command line or the recipe is wrong.

    Example:
        >>> from mosaics.training import TrainingConfig
        >>> (config,) = parse_arguments(TrainingConfig, args=["--max_steps", "20", "--learning_rate", "1e-4"])
        >>> config.max_steps, config.learning_rate
        (20, 0.0001)
    """
    _check_no_field_twice(dataclass_types)
    parser = _build_parser(dataclass_types, description)
    parser.add_argument("--recipe", metavar="FILE", help="YAML file of settings; the command line wins over it.")
    recipe_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe_parser.add_argument("--recipe")
    recipe = recipe_parser.parse_known_args(args)[0].recipe
    if recipe is None and default_recipe is not None and Path(default_recipe).is_file():
        recipe = str(default_recipe)
    if recipe is not None and recipe != "none":
        _apply_recipe(parser, dataclass_types, recipe)
    try:
        *outputs, unknown = parser.parse_args_into_dataclasses(
            args, return_remaining_strings=True, look_for_args_file=False
        )
    except (StrictDataclassError, ValueError, TypeError) as error:  # a dataclass refused a value
        parser.error(" ".join(str(error).split()))
    if unknown:
        parser.error(_describe_unknown(unknown, _field_types(dataclass_types)))
    return tuple(outputs[: len(dataclass_types)])


def _build_parser(dataclass_types: Sequence[type], description: str | None) -> HfArgumentParser:
    declared = [(f, f.type) for dataclass_type in dataclass_types for f in dataclasses.fields(dataclass_type)]
    parser = HfArgumentParser(list(dataclass_types), allow_abbrev=False, description=description)
    for f, field_type in declared:  # the parser narrows `int | None` to `int`, and `strict` would believe it
        f.type = field_type
    types = _field_types(dataclass_types)
    for action in parser._actions:
        field_type = types.get(action.dest)
        choices = typing.get_args(field_type)
        if any(typing.get_origin(choice) is dict for choice in (field_type, *choices)):
            action.type = _json_object
        if type(None) in choices and str not in choices and callable(action.type) and action.nargs is None:
            action.type = _or_none(action.type)
            action.choices = None if action.choices is None else [*action.choices, None]
    return parser


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not valid JSON ({error}): {text!r}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as {{"name": 1}}, got {text!r}')
    return value


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert_or_none(text: str) -> Any:
        return None if text.lower() == "none" else convert(text)

    convert_or_none.__name__ = getattr(convert, "__name__", "value")
    return convert_or_none


def _field_types(dataclass_types: Sequence[type]) -> dict[str, Any]:
    types = {}
    for dataclass_type in dataclass_types:
        hints = typing.get_type_hints(dataclass_type)
        types.update({f.name: hints[f.name] for f in dataclasses.fields(dataclass_type) if f.init})
    return types


def _check_no_field_twice(dataclass_types: Sequence[type]) -> None:
    owners: dict[str, type] = {}
    for dataclass_type in dataclass_types:
        for f in dataclasses.fields(dataclass_type):
            if f.name == "recipe":
                raise ValueError(f"{dataclass_type.__name__}.recipe: --recipe names the YAML file; rename the field.")
            if f.name in owners:
                first, second = owners[f.name].__name__, dataclass_type.__name__
                raise ValueError(f"The field {f.name!r} is in {first} and in {second}; rename one of them.")
            owners[f.name] = dataclass_type


def _describe_unknown(unknown: Sequence[str], types: dict[str, Any]) -> str:
    message = f"unrecognized arguments: {' '.join(unknown)}"
    for word in unknown:
        name = word.lstrip("-").split("=")[0].replace("-", "_")
        close = difflib.get_close_matches(name, types, n=1) if word.startswith("--") else []
        if close:
            message += f"; did you mean --{close[0]} instead of {word.split('=')[0]}?"
    return message


def _apply_recipe(parser: HfArgumentParser, dataclass_types: Sequence[type], recipe: str) -> None:
    """Makes the values of a recipe the defaults of the parser."""
    try:
        values = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"--recipe: cannot read {recipe}: {error.strerror or error}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"--recipe: {recipe} is not valid YAML: {error}")
    values = {} if values is None else values
    if not isinstance(values, dict):
        parser.error(f"--recipe: {recipe} must hold a mapping of names to values, got a {type(values).__name__}.")
    types = _field_types(dataclass_types)
    unknown = [name for name in values if name not in types]
    if unknown:
        hints = [difflib.get_close_matches(str(name), types, n=1) for name in unknown]
        described = [
            f"{name!r}" + (f" (did you mean {hint[0]!r}?)" if hint else "")
            for name, hint in zip(unknown, hints, strict=True)
        ]
        parser.error(f"--recipe: {recipe} has unknown settings: {', '.join(described)}.")
    parser.set_defaults(**{name: _as_field_type(value, types[name]) for name, value in values.items()})
    for action in parser._actions:
        if action.dest in values:
            action.required = False


def _as_field_type(value: Any, field_type: Any) -> Any:
    """YAML's `1e-4` is a string and `1` an integer: both are numbers in a field of floats."""
    choices = (field_type, *typing.get_args(field_type))
    if float in choices and int not in choices and not isinstance(value, bool):
        if isinstance(value, int):
            return float(value)
        if isinstance(value, str) and str not in choices:
            try:
                return float(value)
            except ValueError:
                return value  # the dataclass refuses it, naming the field
    return value
