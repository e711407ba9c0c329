"""The commands, and what all of them do with errors.

Nothing here imports torch: each command imports what it needs when it runs, so that `mosaics --help` answers at once.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

import mosaics
from mosaics.cli import convert, demo, evaluate, generate, info, reconstruct

FAILURE, INTERRUPTED = 1, 130
TRACEBACK = "--traceback"
EXPECTED = (ValueError, OSError, RuntimeError, ImportError, TypeError)


def with_underscores(name: str) -> str:
    """`num-candidates` is `num_candidates`: options may be written either way."""
    return name.replace("-", "_")


app = typer.Typer(
    name="mosaics",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": with_underscores},
)
for module in (generate, reconstruct, evaluate, info, convert, demo):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=module.EXAMPLES)(getattr(module, name))


def show_version(wanted: bool) -> None:
    """Prints the version and ends, if it is wanted."""
    if wanted:
        typer.echo(mosaics.__version__)
        raise typer.Exit()


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option(TRACEBACK, help="Show where in the code an error comes from.")] = False,
) -> None:
    """Images as mosaics of codebook entries: draw, reconstruct, evaluate, inspect and convert.

    Every command has examples: `mosaics generate --help`. It ends with 0 if all went well, with 2 if it was called in
    a wrong way, with 1 if something else failed, and with 130 if it was interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The words after `mosaics`; those of this process by default.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = TRACEBACK in arguments  # accepted anywhere
    arguments = [word for word in arguments if word != TRACEBACK]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            typer.main.get_command(app).main(args=arguments, prog_name="mosaics")
        except SystemExit as ending:
            return int(ending.code or 0)
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            if traceback:
                raise
            typer.echo(f"mosaics: error: {one_line(error)}", err=True)
            return FAILURE
    return 0


def one_line(error: BaseException) -> str:
    """What an error says, on one line; with its kind if the message alone would not be understood."""
    message = " ".join(str(error).split())
    if not message or not isinstance(error, EXPECTED):
        return f"{type(error).__name__}: {message} ({TRACEBACK} shows where)"
    return message


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """As `warnings.showwarning`, without the place."""
    typer.echo(f"mosaics: warning: {' '.join(str(message).split())}", err=True)
