"""CLIP as the judge of candidates: how well a picture fits its prompt.

*Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092), section 2.6: draw N candidates, rank them with
a contrastive model (CLIP, https://arxiv.org/abs/2103.00020), keep the best. The model is transformers' `CLIPModel`.

A CLIP trained for one pipeline shares its tokenizer, which has a pad token and no end token. transformers pools the
text at the first `eos_token_id`. So the pad token plays the end token: `text_config.eos_token_id = pad_token_id`, and
[`clip_text_inputs`] appends one pad, so that every text has one. Attention is causal: the state at the first pad has
seen the whole text, and no other pad. A published CLIP comes with a `CLIPProcessor`, and reads the prompt with that.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, CLIPModel, CLIPProcessor, CLIPTextConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from mosaics.models.weights_check import check_saved_weights, refuse_nonfinite


def clip_text_config(tokenizer: PreTrainedTokenizerBase, max_text_length: int, **fields: Any) -> CLIPTextConfig:
    """The text config of a CLIP that shares a DALL-E tokenizer; `fields` are further fields, such as `hidden_size`."""
    pad = tokenizer.pad_token_id
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=max_text_length + 1,
        pad_token_id=pad,
        bos_token_id=pad,
        eos_token_id=pad,
        **fields,
    )


def clip_text_inputs(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """What the text model of such a CLIP reads: tokens (B, T), padded on the right, with one more pad (B, T + 1)."""
    return F.pad(input_ids, (0, 1), value=pad_token_id)


def clip_pixels(pixel_values: torch.Tensor, clip: CLIPModel, clip_processor: Any) -> torch.Tensor:
    """Pictures `(B, 3, H, W)` in [0, 1] to the normalised input of `clip`: resized, mean and deviation removed.

    The same as the processor's own steps for square pictures, without the way over 8-bit images on the CPU.
    """
    processor = getattr(clip_processor, "image_processor", clip_processor)
    vision: Any = clip.config.vision_config
    size = vision.image_size
    pixels = pixel_values.float()
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    mean = torch.tensor(processor.image_mean, device=pixels.device).view(3, 1, 1)
    deviation = torch.tensor(processor.image_std, device=pixels.device).view(3, 1, 1)
    return ((pixels - mean) / deviation).to(clip.dtype)


class Reranker:
    """Scores pictures against prompts: cosine of CLIP features, -1 to 1.

    Args:
        clip: The model.
        clip_processor: `CLIPImageProcessor` if the CLIP shares the pipeline's tokenizer, else its `CLIPProcessor`.
    """

    def __init__(self, clip: CLIPModel, clip_processor: Any):
        self.clip = clip
        self.clip_processor = clip_processor

    def text_features(self, prompts: Sequence[str], input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
        """Unit vectors `(P, D)` of the prompts; `input_ids` are the pipeline's tokens `(P, T)` of the same."""
        device = self.clip.device
        if hasattr(self.clip_processor, "tokenizer"):
            inputs = self.clip_processor(text=list(prompts), return_tensors="pt", padding=True, truncation=True)
            self._check_ends(inputs["input_ids"])
            features = self.clip.get_text_features(**inputs.to(device))
        else:
            features = self.clip.get_text_features(input_ids=clip_text_inputs(input_ids, pad_token_id).to(device))
        return F.normalize(_pooled(features).float(), dim=-1)

    def scores(self, pixel_values: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        """Cosine `(B,)` of pictures `(B, 3, H, W)` in [0, 1] with the text features `(B, D)` of their prompts.

        Raises:
            FloatingPointError: A score is NaN or infinite.
        """
        pixels = clip_pixels(pixel_values.to(self.clip.device), self.clip, self.clip_processor)
        image_features = F.normalize(_pooled(self.clip.get_image_features(pixel_values=pixels)).float(), dim=-1)
        scores = (image_features * text_features.to(image_features.device)).sum(dim=-1).cpu()
        if not torch.isfinite(scores).all():
            raise FloatingPointError("clip gave scores that are NaN or infinite.")
        return scores

    def _check_ends(self, input_ids: torch.Tensor) -> None:
        text: Any = self.clip.config.text_config
        end = text.eos_token_id
        # 2 is what old configs say; transformers then takes the largest id for the end.
        if end != 2 and not (input_ids == end).any(dim=1).all():
            raise ValueError(
                f"clip_processor's tokenizer ends no text with eos_token_id={end}, where clip looks for it. If clip "
                "was trained with the pipeline's tokenizer, give its CLIPImageProcessor as clip_processor."
            )


def load_clip(source: str | os.PathLike) -> tuple[CLIPModel, Any]:
    """A CLIP and what prepares its inputs, from a folder or the Hub: the `clip` and `clip_processor` of a pipeline.

    Args:
        source: Folder or Hub id. With a tokenizer in it (a published CLIP) the processor is a `CLIPProcessor`, without
            one (a CLIP that shares a pipeline's tokenizer) a `CLIPImageProcessor`.

    Raises:
        WeightsError: Weights are missing or not finite.
    """
    clip = CLIPModel.from_pretrained(source, use_safetensors=True)
    check_saved_weights(clip)
    refuse_nonfinite(clip.state_dict(), str(source))
    tokenizer = cached_file(source, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
    return clip, (AutoImageProcessor if tokenizer is None else CLIPProcessor).from_pretrained(source)


def _pooled(features: Any) -> torch.Tensor:
    """The projected features; transformers returns them inside an output object since version 5."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
