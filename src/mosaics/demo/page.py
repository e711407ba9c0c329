"""The page: four tabs over one pipeline."""

from collections.abc import Sequence
from typing import Any

try:
    import gradio as gr
except ImportError as error:
    raise ImportError('The demo needs gradio: pip install "mosaics[demo]".') from error

from PIL import Image

from mosaics.demo.codebook_tab import CodebookHandlers, add_codebook_tab
from mosaics.demo.complete_tab import add_complete_tab
from mosaics.demo.components import AT_ONCE, LOOKING, Page, with_messages
from mosaics.demo.draw_tab import add_draw_tab, leave_handler
from mosaics.demo.reconstruct_tab import add_reconstruct_tab
from mosaics.demo.stopping import StopSignals
from mosaics.pipelines import DallePipeline
from mosaics.pipelines.default import default_checkpoint

TITLE = "Mosaics"
QUEUE_SIZE = 16
CACHE_SECONDS = 3600
EXAMPLES = (  # what the embedded checkpoint knows
    "a lion on a blue background",
    "a pizza on a white background",
    "two copies of cat on green",
    "a grinning face on a pink background",
    "three strawberries on a yellow background",
    "a banana above a monkey face",
    "a 3d emoji of a sloth",
)


def build(pipeline: DallePipeline, examples: Sequence[str] | None = None) -> gr.Blocks:
    """The page over a pipeline, not yet served.

    The pipeline is only read. Drawings wait for each other in a queue of bounded length.

    Args:
        pipeline: The pipeline; without CLIP no scores are shown.
        examples: Prompts to try; by default those of the embedded checkpoint, if that is what the pipeline is.

    Raises:
        TypeError: `pipeline` is no [`DallePipeline`].
    """
    if not isinstance(pipeline, DallePipeline):
        raise TypeError(f"pipeline must be a DallePipeline, got {type(pipeline).__name__}.")
    if examples is None:
        examples = EXAMPLES if is_embedded(pipeline) else ()
    signals = StopSignals()
    with Page(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)) as page:
        gr.Markdown(heading(pipeline))
        with gr.Tab("Draw"):
            drawn = add_draw_tab(pipeline, signals, examples)
        with gr.Tab("Complete"):
            complete_upload, complete_sources = add_complete_tab(pipeline, signals)
        with gr.Tab("Codebook") as codebook_tab:
            codebook_upload, codebook_sources, canvas, codebook = add_codebook_tab(pipeline, codebook_tab)
        with gr.Tab("Reconstruct"):
            reconstruct_upload, reconstruct_sources = add_reconstruct_tab(pipeline)

        for upload, sources in (
            (complete_upload, complete_sources),
            (codebook_upload, codebook_sources),
            (reconstruct_upload, reconstruct_sources),
        ):
            add_drawn_source(drawn.chosen, upload, sources)
        add_canvas_source(canvas, codebook, complete_upload, complete_sources)
        add_canvas_source(canvas, codebook, reconstruct_upload, reconstruct_sources)
        page.unload(leave_handler(signals))
    return page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)


def heading(pipe: DallePipeline) -> str:
    """What is served, in two lines of Markdown."""
    config = pipe.dvae.config
    return (
        f"# {TITLE}\n"
        f"Images as mosaics of codebook entries: {config.image_size} × {config.image_size} pixels are "
        f"{config.grid_size} × {config.grid_size} codes out of {config.num_embeddings:,}, and a transformer draws the "
        "codes of a sentence."
    )


def is_embedded(pipe: DallePipeline) -> bool:
    """Whether the pipeline is the checkpoint that comes with the package."""
    source = pipe.config.get("_name_or_path")
    return bool(source) and source == default_checkpoint()


def add_drawn_source(chosen: gr.State, upload: gr.Image, row: gr.Row) -> None:
    """Adds a button that puts the picture chosen in "Draw" where an upload goes."""

    def on_take(picture: Image.Image | None) -> Any:
        if picture is None:
            raise ValueError('No picture is drawn yet: draw one in the tab "Draw".')
        return picture

    with row:
        button = gr.Button("Take the drawn picture", size="sm", min_width=150)
    button.click(with_messages(on_take), chosen, upload, **AT_ONCE)


def add_canvas_source(canvas: gr.State, handlers: CodebookHandlers, upload: gr.Image, row: gr.Row) -> None:
    """Adds a button that puts what is painted in "Codebook" where an upload goes."""
    with row:
        button = gr.Button("Take the painted codes", size="sm", min_width=150)
    button.click(with_messages(handlers.picture), canvas, upload, **LOOKING)
