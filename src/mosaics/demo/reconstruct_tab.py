"""Tab "Reconstruct": a picture through its codes and back."""

from typing import Any

import gradio as gr

from mosaics.demo.components import LOOKING, picture_upload, with_messages
from mosaics.demo.limits import read_upload
from mosaics.demo.reconstruction import Reconstruction, reconstruct
from mosaics.pipelines import DallePipeline


def describe(result: Reconstruction, num_embeddings: int) -> str:
    """The numbers of a reconstruction, as a Markdown list."""
    return (
        f"- **PSNR {result.psnr:.1f} dB** between the two\n"
        f"- **{result.num_codes} different codes** of {num_embeddings:,}, in {result.num_positions:,} places\n"
        f"- **{result.num_bytes:,} bytes** of codes instead of {result.raw_bytes:,} bytes of pixels, "
        f"{result.raw_bytes / result.num_bytes:.0f} times fewer"
    )


def add_reconstruct_tab(pipe: DallePipeline) -> tuple[gr.Image, gr.Row]:
    """Adds the tab; returns where its picture goes, and the row for buttons that put one there."""
    size = pipe.dvae.config.image_size
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = picture_upload("Picture", "reconstruct-upload")
            sources = gr.Row()
            gr.Markdown(f"Its central square is cut out and resized to {size} × {size} pixels.")
        with gr.Column(scale=3, min_width=320):
            gr.Markdown("**Left the picture, right what its codes paint**: pull the line")
            slider = gr.ImageSlider(
                label="The picture, and what its codes paint",
                show_label=False,
                format="png",
                max_height=520,
                buttons=["fullscreen"],
                interactive=False,
                elem_id="reconstruct-slider",
            )
            about = gr.Markdown(elem_id="reconstruct-about")

    def on_picture(path: str | None) -> list[Any]:
        if path is None:
            return [None, ""]
        result = reconstruct(pipe, read_upload(path, size))
        return [(result.original, result.decoded), describe(result, pipe.dvae.config.num_embeddings)]

    upload.change(with_messages(on_picture), upload, [slider, about], **LOOKING)
    return upload, sources
