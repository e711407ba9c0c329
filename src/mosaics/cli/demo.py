"""`mosaics demo`."""

import importlib.util
from typing import Annotated

import typer

from mosaics.cli.options import Checkpoint, examples

EXAMPLES = examples(
    "mosaics demo",
    "mosaics demo --checkpoint outputs/my-dalle/pipeline --port 8000",
)


def demo(
    checkpoint: Checkpoint = None,
    host: Annotated[str, typer.Option("--host", help="Address to serve on; 0.0.0.0 is all of the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Port to serve on. [default: the first free one from 7860]"),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Let gradio give the page a public address.")] = False,
    inbrowser: Annotated[bool, typer.Option("--inbrowser", help="Open the page in the browser.")] = False,
) -> None:
    """Open a page in the browser.

    To draw, complete and reconstruct pictures, on this machine alone unless --host says otherwise.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError('the demo needs gradio: `pip install "mosaics[demo]"`.')
    from mosaics.cli.checkpoints import checkpoint_folder
    from mosaics.demo import launch

    launch(checkpoint=str(checkpoint_folder(checkpoint)), host=host, port=port, share=share, inbrowser=inbrowser)
