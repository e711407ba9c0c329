"""Whether the parts of a DALL-E pipeline belong together."""

from typing import Any

from mosaics.models.codebook_identity import codebook_id

LARGEST_REAL_LENGTH = 10**6  # tokenizers without a limit say 1e30


class ComponentsDisagreeError(ValueError):
    """Parts of a pipeline that were not made for each other; the message names both numbers."""


def check_components(
    tokenizer: Any, transformer: Any, dvae: Any, clip: Any = None, clip_processor: Any = None
) -> None:
    """Raises if the parts of a pipeline disagree in vocabularies, sizes or codebook identity.

    Raises:
        TypeError: A part is not what it should be.
        ComponentsDisagreeError: Two parts disagree.
    """
    _check_types(tokenizer, transformer, dvae)
    _check_codes(transformer, dvae)
    _check_text(tokenizer, transformer)
    if clip is not None:
        _check_clip(clip, clip_processor, tokenizer, transformer)


def _check_types(tokenizer: Any, transformer: Any, dvae: Any) -> None:
    needed = (
        ("tokenizer", tokenizer, ("pad_token_id", "model_max_length"), "a PreTrainedTokenizerFast"),
        ("transformer", transformer, ("generate", "config"), "a DalleTransformer"),
        ("dvae", dvae, ("encode", "decode", "config"), "a DiscreteVAE or another image tokenizer"),
    )
    for name, part, attributes, expected in needed:
        if any(not hasattr(part, attribute) for attribute in attributes):
            raise TypeError(f"{name} must be {expected}, got {type(part).__name__}.")


def _check_codes(transformer: Any, dvae: Any) -> None:
    prior, tokenizer = transformer.config, dvae.config
    if prior.image_vocab_size != tokenizer.num_embeddings:
        raise ComponentsDisagreeError(
            f"the transformer draws codes from 0 to {prior.image_vocab_size - 1} (image_vocab_size="
            f"{prior.image_vocab_size}), the dvae has num_embeddings={tokenizer.num_embeddings} codes. "
            "Use the dvae that the transformer was trained with."
        )
    if prior.image_grid_size != tokenizer.grid_size:
        raise ComponentsDisagreeError(
            f"the transformer draws a grid of side image_grid_size={prior.image_grid_size}; "
            f"the dvae's pictures of {tokenizer.image_size} pixels are {tokenizer.grid_size} x {tokenizer.grid_size} "
            "(grid_size). Use the dvae that the transformer was trained with."
        )
    latents = getattr(tokenizer, "latents_per_position", 1)
    if latents != 1:
        raise ComponentsDisagreeError(
            f"the dvae has latents_per_position={latents} codes at each position of its grid; the transformer draws 1."
        )
    if prior.codebook_id is not None and prior.codebook_id != (found := codebook_id(dvae)):
        raise ComponentsDisagreeError(
            f"the transformer was trained on the codes of codebook {prior.codebook_id!r} (config.codebook_id), the "
            f"dvae has codebook {found!r}. Their codes mean different things: use the dvae it was trained with."
        )


def _check_text(tokenizer: Any, transformer: Any) -> None:
    prior = transformer.config
    if len(tokenizer) > prior.text_vocab_size:
        raise ComponentsDisagreeError(
            f"the tokenizer has {len(tokenizer)} tokens, the transformer text_vocab_size={prior.text_vocab_size}. "
            "Use the tokenizer that the transformer was trained with."
        )
    if tokenizer.pad_token_id != prior.pad_token_id:
        raise ComponentsDisagreeError(
            f"the tokenizer pads with id {tokenizer.pad_token_id}, the transformer with {prior.pad_token_id}."
        )
    length = tokenizer.model_max_length
    if length <= LARGEST_REAL_LENGTH and length != prior.max_text_length:
        raise ComponentsDisagreeError(
            f"the tokenizer pads texts to model_max_length={length} tokens, the transformer reads max_text_length="
            f"{prior.max_text_length}. Use the tokenizer that the transformer was trained with."
        )


def _check_clip(clip: Any, clip_processor: Any, tokenizer: Any, transformer: Any) -> None:
    if not hasattr(clip, "get_image_features") or not hasattr(clip, "get_text_features"):
        raise TypeError(f"clip must be a transformers CLIPModel, got {type(clip).__name__}.")
    if clip_processor is None:
        raise TypeError("clip needs clip_processor (CLIPImageProcessor or CLIPProcessor), got None.")
    if hasattr(clip_processor, "tokenizer"):
        return  # a CLIPProcessor reads the prompt with a tokenizer of its own
    text = clip.config.text_config
    if len(tokenizer) > text.vocab_size:
        raise ComponentsDisagreeError(
            f"clip reads the pipeline's tokenizer, which has {len(tokenizer)} tokens; its text_config.vocab_size is "
            f"{text.vocab_size}. Use the CLIP trained with this tokenizer, or a CLIPProcessor with its own."
        )
    positions = transformer.config.max_text_length + 1
    if text.max_position_embeddings < positions:
        raise ComponentsDisagreeError(
            f"clip has text_config.max_position_embeddings={text.max_position_embeddings}, it needs {positions}: "
            f"max_text_length={transformer.config.max_text_length} and one pad token after it."
        )
    if text.eos_token_id != tokenizer.pad_token_id:
        raise ComponentsDisagreeError(
            f"clip pools at text_config.eos_token_id={text.eos_token_id}; with the pipeline's tokenizer it must be "
            f"the pad token, {tokenizer.pad_token_id} (see mosaics.pipelines.reranking.clip_text_config)."
        )
