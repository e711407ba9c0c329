"""What a user asks `mosaics generate` for: prompts, or classes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

STDIN = "-"


def read_requests(
    prompts: Sequence[str], prompts_file: str | None, class_labels: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The prompts and the classes of a command line, of which one is empty.

    Args:
        prompts: Prompts; a single `-` stands for stdin.
        prompts_file: File with one prompt on each line, or `-`.
        class_labels: Classes.
    """
    prompts = list(prompts)
    if prompts == [STDIN]:
        prompts, prompts_file = [], STDIN
    if prompts_file is not None:
        prompts += _read_lines(prompts_file)
        if not prompts:
            raise ValueError(f"{'stdin' if prompts_file == STDIN else prompts_file} holds no prompts.")
    if prompts and class_labels:
        raise typer.BadParameter("give prompts or classes, not both.", param_hint="--class_label")
    return prompts, list(class_labels)


def check_requests(pipe: Any, prompts: Sequence[str], class_labels: Sequence[str]) -> Sequence[str | int | None]:
    """The requests as the pipeline reads them; all are checked before the first is drawn.

    Raises:
        ValueError: A prompt or a class cannot be used; the message names it.
    """
    from mosaics.data.captions import check_caption
    from mosaics.pipelines.class_labels import read_class_labels
    from mosaics.pipelines.many_pictures import is_text_to_image
    from mosaics.pipelines.prompts import tokenize_prompts

    if not is_text_to_image(pipe):
        if prompts:
            raise typer.BadParameter("this checkpoint draws classes, not sentences: use --class_label.")
        labels = [int(label) if label.isdecimal() else label for label in class_labels]
        return list(read_class_labels(labels or None, pipe.num_classes, pipe.class_names))
    if class_labels:
        raise typer.BadParameter("this checkpoint draws sentences: give prompts.", param_hint="--class_label")
    if not prompts:
        raise typer.BadParameter("say what to draw, or name a file with --prompts_file.", param_hint="PROMPT")
    if len(prompts) == 1:
        checked = [check_caption(prompts[0], "prompt")]
    else:
        checked = [check_caption(text, f"prompt[{number}]") for number, text in enumerate(prompts)]
    tokenize_prompts(pipe.tokenizer, checked, pipe.transformer.config.max_text_length)
    return checked


def _read_lines(source: str) -> list[str]:
    """The lines of a UTF-8 text that are not blank."""
    try:
        content = sys.stdin.read() if source == STDIN else Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{'stdin' if source == STDIN else source} is not UTF-8 text: {error}.") from error
    return [line for line in content.splitlines() if line.strip()]
