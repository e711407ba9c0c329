"""Tab "Codebook": what each code paints, and a grid of codes to paint on."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
import torch
from PIL import Image

from mosaics.demo.codebook import CodebookMosaic, canvas_picture, check_code, code_alone, place_at
from mosaics.demo.components import LOOKING, picture_upload, picture_view, with_messages
from mosaics.demo.limits import read_upload
from mosaics.demo.pictures import decode, encode, enlarge, to_pictures
from mosaics.demo.results import KEPT_SECONDS
from mosaics.pipelines import DallePipeline

PAINT, PICK = "paint the chosen code", "choose the code there"
MAX_STEPS_BACK = 100


@dataclass(frozen=True)
class Canvas:
    """A visitor's grid of codes.

    Args:
        indices: `(h, w)`, int64.
        place: Row and column that was clicked last, if any.
        before: The grids that it was made from, the last one at the end.
    """

    indices: torch.Tensor
    place: tuple[int, int] | None = None
    before: tuple[torch.Tensor, ...] = ()

    def changed(self, indices: torch.Tensor, place: tuple[int, int] | None = None) -> "Canvas":
        """The canvas with other codes, from which one can go back."""
        return Canvas(indices, place, (*self.before, self.indices)[-MAX_STEPS_BACK:])

    def painted(self, place: tuple[int, int], code: int) -> "Canvas":
        """The canvas with one code changed."""
        indices = self.indices.clone()
        indices[place] = code
        return self.changed(indices, place)


class CodebookHandlers:
    """What happens on a click.

    Args:
        pipe: The pipeline.
    """

    def __init__(self, pipe: DallePipeline):
        self.pipe = pipe
        self.mosaic = CodebookMosaic(pipe)
        self.num_codes = pipe.dvae.config.num_embeddings
        self.grid_size = pipe.dvae.config.grid_size

    def open(self, canvas: Canvas | None) -> list[Any]:
        """The mosaic, the lightest code, and a canvas of it, when the tab is opened first."""
        if canvas is not None:
            return [gr.skip()] * 6
        code = self.mosaic.brightest()
        canvas = Canvas(torch.full((self.grid_size, self.grid_size), code))
        return [*self.choose(code), *self.show(canvas, "Click into the picture.")]

    def choose(self, code: float | None) -> list[Any]:
        """Mosaic with the code framed, its number, and what it paints alone."""
        code = check_code(code, self.num_codes)
        return [self.mosaic.marked(code), code, enlarge(code_alone(self.pipe, code), 128)]

    def choose_at(self, event: gr.SelectData) -> list[Any]:
        """The same for the code clicked in the mosaic."""
        return self.choose(self.mosaic.code_at(*clicked_pixel(event)))

    def click(self, canvas: Canvas | None, mode: str, code: float | None, event: gr.SelectData) -> list[Any]:
        """Paints the chosen code at the place clicked, or chooses the code that is there."""
        canvas = self.check_canvas(canvas)
        side = canvas_picture(self.pipe, canvas.indices, None).width
        x, y = clicked_pixel(event)
        place = place_at(x, y, side, self.grid_size)
        there, name = int(canvas.indices[place]), f"row {place[0] + 1}, column {place[1] + 1}"
        if mode == PICK:
            canvas = Canvas(canvas.indices, place, canvas.before)
            return [*self.choose(there), *self.show(canvas, f"**Code {there}** in {name}.")]
        code = check_code(code, self.num_codes)
        canvas = canvas.painted(place, code)
        return [gr.skip()] * 3 + self.show(canvas, f"**Code {code}** in {name}, where code {there} was.")

    def fill(self, canvas: Canvas | None, code: float | None) -> list[Any]:
        """A canvas of nothing but the chosen code."""
        code = check_code(code, self.num_codes)
        canvas = self.check_canvas(canvas).changed(torch.full((self.grid_size, self.grid_size), code))
        return self.show(canvas, f"Filled with code {code}.")

    def undo(self, canvas: Canvas | None) -> list[Any]:
        """The canvas before the last change."""
        canvas = self.check_canvas(canvas)
        if not canvas.before:
            raise ValueError("There is nothing to undo.")
        return self.show(Canvas(canvas.before[-1], None, canvas.before[:-1]), "One step back.")

    def read(self, canvas: Canvas | None, path: str | None) -> list[Any]:
        """The codes of an uploaded picture as the canvas."""
        if path is None:
            return [gr.skip()] * 3
        indices = encode(self.pipe, read_upload(path, self.pipe.dvae.config.image_size)[None])[0]
        canvas = self.check_canvas(canvas).changed(indices)
        return self.show(canvas, f"The picture has {len(indices.unique())} different codes.")

    def picture(self, canvas: Canvas | None) -> Image.Image:
        """What the canvas paints, at its own size."""
        return to_pictures(self.pipe, decode(self.pipe, self.check_canvas(canvas).indices[None]))[0].convert("RGB")

    def show(self, canvas: Canvas, note: str) -> list[Any]:
        """Values of the canvas' state, picture and note."""
        return [canvas, canvas_picture(self.pipe, canvas.indices, canvas.place), note]

    def check_canvas(self, canvas: Canvas | None) -> Canvas:
        """The canvas, or an error if none was opened or the server has forgotten it."""
        if canvas is None:
            raise ValueError(
                'There is no grid of codes: open the tab "Codebook", or load the page again if it was open.'
            )
        return canvas


def clicked_pixel(event: gr.SelectData) -> tuple[float, float]:
    """The pixel of a picture that was clicked, from the left and from the top.

    Raises:
        ValueError: The browser sent something else.
    """
    if not isinstance(event.index, tuple | list) or len(event.index) != 2:
        raise ValueError(f"A click into a picture has two coordinates, got {event.index!r}.")
    x, y = event.index
    return x, y


def add_codebook_tab(pipe: DallePipeline, tab: gr.Tab) -> tuple[gr.Image, gr.Row, gr.State, CodebookHandlers]:
    """Adds the tab; returns where a picture goes, the row for buttons that put one there, the canvas, its handlers."""
    handlers = CodebookHandlers(pipe)
    canvas = gr.State(None, time_to_live=KEPT_SECONDS)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            gr.Markdown(f"**The {handlers.num_codes:,} codes**, the brightest first: click one to choose it")
            mosaic = picture_view("The codebook", "codebook-mosaic")
        with gr.Column(scale=1, min_width=320):
            gr.Markdown("**The chosen code**, and a grid of nothing else")
            with gr.Row():
                code = gr.Number(
                    show_label=False,
                    precision=0,
                    minimum=0,
                    maximum=handlers.num_codes - 1,
                    min_width=140,
                    elem_id="codebook-code",
                )
                alone = picture_view(
                    "A grid of the chosen code", "codebook-alone", height=112, min_width=140, elem_classes=["enlarged"]
                )
            gr.Markdown(f"**A grid of {handlers.grid_size} × {handlers.grid_size} codes**: click into it to")
            mode = gr.Radio([PAINT, PICK], value=PAINT, show_label=False, container=False, elem_id="codebook-mode")
            picture = picture_view("A grid of codes", "codebook-canvas")
            note = gr.Markdown(elem_id="codebook-note")
            with gr.Row():
                undo = gr.Button("Undo", size="sm", min_width=100)
                fill = gr.Button("Fill with the code", size="sm", min_width=150)
                sources = gr.Row()
            with gr.Accordion("Upload a picture to see its codes", open=False):
                upload = picture_upload("Picture", "codebook-upload")

    brush, grid = [mosaic, code, alone], [canvas, picture, note]
    tab.select(with_messages(handlers.open), canvas, brush + grid, **LOOKING)
    mosaic.select(with_messages(handlers.choose_at), outputs=brush, **LOOKING)
    gr.on([code.submit, code.blur], with_messages(handlers.choose), code, brush, show_progress="hidden", **LOOKING)
    picture.select(
        with_messages(handlers.click),
        [canvas, mode, code],
        brush + grid,
        show_progress="hidden",
        trigger_mode="multiple",
        **LOOKING,
    )
    fill.click(with_messages(handlers.fill), [canvas, code], grid, **LOOKING)
    undo.click(with_messages(handlers.undo), canvas, grid, **LOOKING)
    upload.change(with_messages(handlers.read), [canvas, upload], grid, **LOOKING)
    return upload, sources, canvas, handlers
