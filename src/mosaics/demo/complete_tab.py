"""Tab "Complete": the first rows of a picture are kept, the rest is drawn."""

from typing import Any

import gradio as gr

from mosaics.demo.components import AT_ONCE, LOOKING, picture_upload, picture_view, with_messages
from mosaics.demo.draw_tab import Values, draw_on, prompt_box, stop_handler
from mosaics.demo.drawing import DrawingRequest, DrawnPicture
from mosaics.demo.limits import read_upload
from mosaics.demo.pictures import enlarge, mark_given, only_given, to_pictures
from mosaics.demo.results import Results
from mosaics.demo.sampling_controls import SamplingControls
from mosaics.demo.stopping import StopSignals
from mosaics.pipelines import DallePipeline


def add_complete_tab(pipe: DallePipeline, signals: StopSignals) -> tuple[gr.Image, gr.Row]:
    """Adds the tab; returns where its picture goes, and the row for buttons that put one there."""
    size, grid_size = pipe.dvae.config.image_size, pipe.transformer.config.image_grid_size

    def with_frame(picture: DrawnPicture) -> Any:
        return mark_given(picture.image, picture.request.prefix_rows, grid_size)

    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = picture_upload("Picture to complete", "complete-upload")
            sources = gr.Row()
            rows = gr.Slider(
                1,
                grid_size - 1,
                grid_size // 2,
                step=1,
                label=f"Rows kept, of {grid_size}",
                info=f"a row is {size // grid_size} pixels high; the rest is drawn anew",
                elem_id="complete-rows",
            )
            prompt = prompt_box("complete-prompt", "What the whole picture shows")
            with gr.Row():
                button = gr.Button("Complete", variant="primary", min_width=100, elem_id="complete-button")
                stop = gr.Button("Stop", min_width=100)
            controls = SamplingControls(pipe, num_candidates=16, num_shown=8)
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("**What is kept**")
            given = picture_view("What is kept", "complete-given", height=220, elem_classes=["enlarged"])
            gr.Markdown("**Completions**: the violet frame is around what was given")
            results = Results(pipe, "complete", in_gallery=with_frame)

    def on_look(path: str | None, rows: float) -> Any:
        if path is None:
            return None
        picture = to_pictures(pipe, read_upload(path, size)[None])[0].convert("RGB")
        return enlarge(only_given(picture, check_rows(rows, grid_size), grid_size), 256)

    def ask(values: Values) -> DrawingRequest:
        pixels, kept = read_upload(values[upload], size), check_rows(values[rows], grid_size)
        return controls.request(values, values[prompt], pixels, kept)

    gr.on([upload.change, rows.release], with_messages(on_look), [upload, rows], given, **LOOKING)
    draw_on([button.click], {upload, rows, prompt, *controls.inputs()}, ask, results, signals)
    stop.click(stop_handler(signals), **AT_ONCE)
    return upload, sources


def check_rows(rows: float, grid_size: int) -> int:
    """Returns the rows to keep as an integer.

    Raises:
        ValueError: It is no integer from 1 to `grid_size` - 1.
    """
    if isinstance(rows, bool) or rows not in range(1, grid_size):
        raise ValueError(f"The rows kept must be an integer from 1 to {grid_size - 1}, got {rows!r}.")
    return int(rows)
