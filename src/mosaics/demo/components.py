"""Parts of the page: pictures in and out, errors as messages, files from uploads alone."""

import functools
import html
from collections.abc import Callable
from typing import Any

import gradio as gr
import torch
from gradio.exceptions import ComponentProcessingError
from transformers.utils import logging

from mosaics.pipelines.running import DrawingStopped

logger = logging.get_logger(__name__)

# One drawing at a time, and beside it one look at the codebook, which takes a moment only.
DRAWING: dict[str, Any] = {"concurrency_id": "drawing", "concurrency_limit": 1, "api_visibility": "private"}
LOOKING: dict[str, Any] = {"concurrency_id": "looking", "concurrency_limit": 1, "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}


def picture_upload(label: str, elem_id: str) -> gr.Image:
    """Where a visitor gives a picture; handlers get the path of the file, which nothing has decoded yet."""
    return gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        format="png",
        height=280,
        buttons=[],
        interactive=True,
        elem_id=elem_id,
        elem_classes=["enlarged"],
    )


def picture_view(label: str, elem_id: str, **settings: Any) -> gr.Image:
    """Where the page shows a picture; the label is for those who cannot see it."""
    arguments: dict[str, Any] = {"buttons": [], "show_label": False, **settings}
    return gr.Image(label=label, format="png", interactive=False, elem_id=elem_id, **arguments)


class Page(gr.Blocks):
    """Blocks that take files from uploads alone: gradio would fetch one given by its address, for any component."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Refuses addresses before gradio looks at the values, and says so of files that it cannot read.

        Raises:
            gr.Error: A file is given by its address, or is no picture.
        """
        if any(holds_address(value) for value in inputs):
            raise message("Pictures are taken from uploads only, not from addresses.")
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except ComponentProcessingError as error:  # its text names the file on the server
            raise message("The upload is no picture that can be read here.") from error


def holds_address(value: Any) -> bool:
    """Whether a value from the browser holds a file whose path is an address, or whose content stands in its address.

    The address that gradio gave to an upload on this server, in `url`, is none of these: it is not followed.
    """
    if isinstance(value, list):
        return any(holds_address(item) for item in value)
    if not isinstance(value, dict):
        return False
    path, url = str(value.get("path") or ""), str(value.get("url") or "")
    return "://" in path or url.startswith("data:") or any(holds_address(item) for item in value.values())


def with_messages(handler: Callable) -> Callable:
    """A handler whose errors the visitor reads as messages.

    An error that names what is wrong with the request is shown, as text. Any other is logged here, and the visitor
    learns only that there was one.
    """

    @functools.wraps(handler)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except DrawingStopped as error:
            raise message("Stopped before a picture was finished.") from error
        except ValueError as error:
            raise message(str(error)) from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            logger.exception("The demo ran out of memory.")
            raise message("Not enough memory: ask for fewer candidates.") from error
        except Exception as error:
            logger.exception("A handler of the demo failed.")
            raise message("The server could not do this; its log says why.") from error

    return wrapped


def message(text: str) -> gr.Error:
    """A message for the visitor; gradio shows HTML, so the text is escaped."""
    return gr.Error(html.escape(text), print_exception=False)
