"""Options that several commands have."""

import json
from typing import Annotated, Any

import typer

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "--model",
        help="Folder, or Hub repository such as user/name; the embedded checkpoint if not given.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def examples(*lines: str) -> str:
    """Examples for the end of a command's help, which is not to be rewrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def print_json(value: Any) -> None:
    """Prints a value as JSON on stdout; NaN and infinity, which JSON has not, are refused."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
