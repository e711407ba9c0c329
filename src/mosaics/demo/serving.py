"""Serving the page."""

from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

from mosaics.demo.door import middleware
from mosaics.demo.limits import MAX_UPLOAD_BYTES
from mosaics.pipelines.default import default_checkpoint

if TYPE_CHECKING:
    import gradio as gr

logger = logging.get_logger(__name__)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FONTS = ("system-ui", "sans-serif")
MONOSPACE_FONTS = ("ui-monospace", "monospace")
STYLE = """
.enlarged img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
.pictures img { image-rendering: pixelated; }
.pictures { min-height: 120px; }
.pictures .grid-wrap { height: auto; max-height: none; min-height: 0; }
.bottom { align-items: end; }
@media (max-width: 480px) {
  .tab-container button { padding-left: 8px; padding-right: 8px; }
  .pictures .grid-container { grid-template-columns: repeat(3, 1fr) !important; }
}
"""


def launch(
    checkpoint: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    device: str | None = None,
    auth: tuple[str, str] | None = None,
    inbrowser: bool = False,
    block: bool = True,
) -> "gr.Blocks":
    """Loads a pipeline once and serves the page, by default to this machine alone and without any network.

    Args:
        checkpoint: Folder or Hub id of a [`DallePipeline`]; the embedded one if not given.
        host: Address to listen on; `"0.0.0.0"` lets everyone in the network in.
        port: Port to listen on; the first free one from 7860 if not given.
        share: Make a public address through gradio's servers, for a week. Whoever knows it can draw here.
        device: Where to compute; a CUDA device if there is one, else the CPU.
        auth: User name and password that visitors have to give.
        inbrowser: Open the page in the browser.
        block: Return only when the server ends, as with Ctrl-C.

    Returns:
        The page: `page.local_url` is its address, `page.close()` ends the server.

    Raises:
        ImportError: gradio is not installed.
        ValueError: An argument is out of range.
        OSError: The port is taken.
    """
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535):
        raise ValueError(f"port must be an integer from 1 to 65535, or None for a free one, got {port!r}.")
    if not isinstance(host, str) or not host:
        raise ValueError(f"host must be an address to listen on, such as '127.0.0.1', got {host!r}.")
    from mosaics.demo.page import build  # says how to install gradio
    from mosaics.pipelines import DallePipeline

    pipe = DallePipeline.from_pretrained(checkpoint or default_checkpoint())
    pipe.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pipe.set_progress_bar_config(disable=True)  # the page has its own
    if (share or host not in LOOPBACK) and auth is None:
        logger.warning(
            "The demo is open to everyone who %s: set auth=(name, password) to ask for one.",
            "knows its public address" if share else f"reaches {host}",
        )
    page = build(pipe)
    page.launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=auth,
        inbrowser=inbrowser,
        prevent_thread_lock=not block,
        max_file_size=MAX_UPLOAD_BYTES,
        app_kwargs={"middleware": middleware()},
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=theme(),
        css=STYLE,
    )
    return page


def theme() -> "gr.themes.Base":
    """Colours and the fonts of the visitor's own machine, so that none is fetched."""
    import gradio as gr

    soft = gr.themes.Soft(primary_hue="violet", secondary_hue="violet", font=FONTS, font_mono=MONOSPACE_FONTS)
    return soft.set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")
