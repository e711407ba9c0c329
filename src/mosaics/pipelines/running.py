"""What happens around the loop of a pipeline: progress, interruption, a failing judge. Nothing finished is lost."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from mosaics.models.dalle.decoding import DecodingStep
from mosaics.pipelines.chunks import Chunk
from mosaics.pipelines.reranking import Reranker


class IncompleteResultWarning(UserWarning):
    """A call returns fewer or unranked pictures; the message says why and how many."""


class Finished(Protocol):
    """What holds the candidates that are finished."""

    num_offered: int


class DrawingStopped(RuntimeError):
    """`pipe._interrupt` was set before any candidate was finished."""


class StepReporter:
    """The progress bar over all codes of a call, and the user's callback after each of them.

    Args:
        pipe: The pipeline that is called.
        num_codes: Codes the call is going to draw.
        callback: `callback_on_step_end` of the call.
    """

    def __init__(self, pipe: Any, num_codes: int, callback: Callable[[Any, int, int, dict], dict] | None):
        self.pipe = pipe
        self.callback = callback
        self.step = 0
        self.bar = pipe.progress_bar(total=num_codes)
        self.bar.unit = "code"

    def __enter__(self) -> "StepReporter":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def __call__(self, done: DecodingStep) -> None:
        """Reports one code of every candidate in a batch."""
        self.advance(done.position, done.tokens)

    def advance(self, position: int, indices: torch.Tensor) -> None:
        """Reports the code at `position` of every candidate in a batch; `indices` are their codes so far."""
        self.bar.update(len(indices))
        if self.callback is not None:
            self.callback(self.pipe, self.step, position, {"indices": indices})
        self.step += 1
        if self.pipe.interrupt:
            raise DrawingStopped("the pipeline was stopped by `_interrupt` before any candidate was finished.")


@contextmanager
def keep_finished(best: Finished, num_wanted: int) -> Iterator[None]:
    """Lets an interruption or a lack of memory end the loop quietly if some candidates are finished."""
    try:
        yield
    except (KeyboardInterrupt, DrawingStopped, torch.OutOfMemoryError, MemoryError) as error:
        if best.num_offered == 0:
            raise
        reason = str(error).splitlines()[0] if str(error) and not isinstance(error, DrawingStopped) else ""
        warnings.warn(
            f"stopped ({type(error).__name__}{': ' if reason else ''}{reason}) after {best.num_offered} of "
            f"{num_wanted} candidates: the result is made of these. A smaller batch_size needs less memory.",
            IncompleteResultWarning,
            stacklevel=4,
        )


class GuardedReranker:
    """A [`Reranker`] whose failure costs the ranking, not the pictures.

    Args:
        reranker: The judge.
        prompts: Prompts of the call.
        input_ids: Their tokens `(P, T)`.
        pad_token_id: Pad token of these.
    """

    def __init__(self, reranker: Reranker, prompts: Sequence[str], input_ids: torch.Tensor, pad_token_id: int):
        self.reranker = reranker
        self.failed = False
        self.text_features = None
        self.text = (prompts, input_ids, pad_token_id)

    def scores(self, pixels: torch.Tensor, chunk: Chunk) -> list[float | None]:
        """The score of each picture of a chunk; `None` for all after a failure, which is reported once."""
        if not self.failed:
            try:
                if self.text_features is None:
                    self.text_features = self.reranker.text_features(*self.text)
                prompts = torch.tensor([prompt for prompt, _ in chunk.pairs()])
                return self.reranker.scores(pixels, self.text_features[prompts.to(self.text_features.device)]).tolist()
            except Exception as error:
                self.failed = True
                warnings.warn(
                    f"clip failed ({type(error).__name__}: {error}): the candidates from here on are not ranked, but "
                    "kept in the order they were drawn.",
                    IncompleteResultWarning,
                    stacklevel=3,
                )
        return [None] * len(pixels)
