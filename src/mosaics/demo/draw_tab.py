"""Tab "Draw": a sentence in, pictures out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from mosaics.demo.components import AT_ONCE, DRAWING, with_messages
from mosaics.demo.drawing import DrawingRequest, DrawnPicture, draw
from mosaics.demo.limits import MAX_PROMPT_CHARACTERS
from mosaics.demo.results import Results
from mosaics.demo.sampling_controls import SamplingControls
from mosaics.demo.stopping import StopSignals
from mosaics.pipelines import DallePipeline

Values = Mapping[gr.components.Component, Any]


def draw_and_report(
    pipe: DallePipeline, drawing: DrawingRequest, signals: StopSignals, session: str | None, progress: gr.Progress
) -> list[DrawnPicture]:
    """Draws with a progress bar, until done or stopped by the session."""
    count = drawing.num_candidates if pipe.clip is not None else drawing.num_shown

    def report(done: int, total: int) -> None:
        progress(done / total, desc=f"Drawing {count} candidates, code by code")

    with signals.running(session) as stop:
        pictures = draw(pipe, drawing, report, stop)
        if stop.is_set():
            gr.Info("Stopped. The pictures are chosen from the candidates finished by then.", title="Stopped")
    if pipe.clip is not None and any(picture.score is None for picture in pictures):
        gr.Warning("CLIP failed: some pictures are not ranked. The server's log says why.", title="Not ranked")
    return pictures


def prompt_box(elem_id: str, label: str) -> gr.Textbox:
    """The box for a sentence."""
    return gr.Textbox(
        label=label,
        placeholder="a lion on a blue background",
        lines=2,
        max_lines=4,
        max_length=MAX_PROMPT_CHARACTERS,
        elem_id=elem_id,
    )


def add_draw_tab(pipe: DallePipeline, signals: StopSignals, examples: Sequence[str]) -> Results:
    """Adds the tab, and returns where its pictures are shown."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            prompt = prompt_box("draw-prompt", "What to draw")
            with gr.Row():
                button = gr.Button("Draw", variant="primary", min_width=100, elem_id="draw-button")
                stop = gr.Button("Stop", min_width=100, elem_id="draw-stop")
            if examples:
                gr.Examples(
                    [[text] for text in examples], prompt, label="Try", cache_examples=False, api_visibility="private"
                )
            controls = SamplingControls(pipe, num_candidates=16, num_shown=8)
        with gr.Column(scale=3, min_width=320):
            order = ", the best by CLIP first" if pipe.clip is not None else ""
            gr.Markdown(f"**Pictures**{order}: click one to see what draws it again")
            results = Results(pipe, "draw")

    def ask(values: Values) -> DrawingRequest:
        return controls.request(values, values[prompt])

    draw_on([button.click, prompt.submit], {prompt, *controls.inputs()}, ask, results, signals)
    stop.click(stop_handler(signals), **AT_ONCE)
    return results


def draw_on(
    events: list[Any],
    inputs: set[gr.components.Component],
    ask: Callable[[Values], DrawingRequest],
    results: Results,
    signals: StopSignals,
) -> None:
    """Draws at any of some events what is asked for then, and shows it.

    Args:
        events: The events, such as `button.click`.
        inputs: The components that `ask` reads.
        ask: Makes the request of their values.
        results: Where the pictures are shown.
        signals: Where the drawing can be stopped.
    """

    def on_event(
        values: dict,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - the form gradio expects
    ) -> list[Any]:
        return results.show(draw_and_report(results.pipe, ask(values), signals, request.session_hash, progress))

    gr.on(events, js=results.scroll_into_view)
    gr.on(
        events,
        with_messages(on_event),
        inputs,
        results.outputs(),
        show_progress_on=results.gallery,
        **DRAWING,
    )


def stop_handler(signals: StopSignals) -> Any:
    """A handler that stops the drawings of the session that asks."""

    def on_stop(request: gr.Request) -> None:
        if not signals.stop(request.session_hash):
            gr.Info("Nothing of yours is being drawn.", title="Stop")

    return on_stop


def leave_handler(signals: StopSignals) -> Any:
    """A handler that stops the drawings of a visitor who closes the page."""

    def on_leave(request: gr.Request) -> None:
        signals.stop(request.session_hash)

    return on_leave
