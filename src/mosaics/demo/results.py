"""Where drawn pictures are shown: a gallery, and beneath it the one chosen and how to draw it again."""

from collections.abc import Callable
from typing import Any

import gradio as gr
from PIL import Image

from mosaics.demo.components import AT_ONCE, picture_view, with_messages
from mosaics.demo.drawing import DrawnPicture, python_lines
from mosaics.pipelines import DallePipeline

KEPT_SECONDS = 3600


class Results:
    """A gallery, the best first, and the picture chosen in it.

    Args:
        pipe: The pipeline that draws.
        name: Start of the ids of the elements.
        in_gallery: How a picture is shown in the gallery, if not as it is.
    """

    def __init__(
        self,
        pipe: DallePipeline,
        name: str,
        in_gallery: Callable[[DrawnPicture], Image.Image] = lambda picture: picture.image,
    ):
        self.pipe = pipe
        self.in_gallery = in_gallery
        self.pictures = gr.State([], time_to_live=KEPT_SECONDS)
        self.chosen = gr.State(None, time_to_live=KEPT_SECONDS)
        self.gallery = gr.Gallery(
            show_label=False,
            columns=4,
            format="png",
            height="auto",
            object_fit="contain",
            allow_preview=False,
            buttons=[],
            interactive=False,
            elem_id=f"{name}-gallery",
            elem_classes=["pictures"],
        )
        with gr.Row(visible=False) as self.details:
            with gr.Column(scale=1, min_width=220):
                self.picture = picture_view(
                    "Chosen picture",
                    f"{name}-picture",
                    height=260,
                    buttons=["download", "fullscreen"],
                    elem_classes=["enlarged"],
                )
            with gr.Column(scale=2, min_width=280):
                self.about = gr.Markdown(elem_id=f"{name}-about")
                self.lines = gr.Code(
                    language="python",
                    label="Draws it again",
                    interactive=False,
                    show_line_numbers=False,
                    elem_id=f"{name}-lines",
                )
        # On a phone the gallery lies below the fold.
        self.scroll_into_view = f"""() => {{
            const gallery = document.getElementById("{name}-gallery");
            if (gallery.getBoundingClientRect().top > window.innerHeight / 2)
                gallery.scrollIntoView({{behavior: "smooth"}});
        }}"""
        self.gallery.select(
            with_messages(self._choose), self.pictures, [*self._detail_outputs(), self.chosen], **AT_ONCE
        )

    def outputs(self) -> list[Any]:
        """The components that [`show`] gives values for."""
        return [self.pictures, self.gallery, *self._detail_outputs(), self.chosen]

    def show(self, pictures: list[DrawnPicture]) -> list[Any]:
        """Values of [`outputs`]: all pictures, and the first of them chosen."""
        shown = [(self.in_gallery(picture), picture.caption) for picture in pictures]
        gallery = gr.update(value=shown, selected_index=0)
        return [pictures, gallery, *self._describe(pictures, 0)]

    def _detail_outputs(self) -> list[Any]:
        return [self.details, self.picture, self.about, self.lines]

    def _choose(self, pictures: list[DrawnPicture], event: gr.SelectData) -> list[Any]:
        return self._describe(pictures, event.index)

    def _describe(self, pictures: list[DrawnPicture], number: int) -> list[Any]:
        if not isinstance(number, int) or not 0 <= number < len(pictures):
            raise ValueError("This picture is no longer kept: draw again.")
        picture = pictures[number]
        about = f"**Picture {number + 1} of {len(pictures)}** · seed `{picture.seed}`"
        if picture.score is not None:
            about += f" · CLIP score {picture.score:.3f}"
        lines = python_lines(self.pipe, picture)
        return [gr.update(visible=True), picture.image, about, lines, picture.image]
