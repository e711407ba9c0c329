"""The levels of codes of a tokenizer, and whether a prior belongs to each."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from mosaics.models.codebook_identity import codebook_id
from mosaics.pipelines.class_labels import label_names
from mosaics.pipelines.consistency import ComponentsDisagreeError


class Level(NamedTuple):
    """One grid of codes."""

    shape: tuple[int, ...]  # (h, w), or (h, w, L) with L > 1 codes at each position
    num_embeddings: int
    owner: nn.Module  # of the codebook, if there is one

    @property
    def side(self) -> int:
        """Positions along one side."""
        return self.shape[0]

    @property
    def num_codes(self) -> int:
        """Codes of a picture."""
        return prod(self.shape)


def is_hierarchical(tokenizer: PreTrainedModel) -> bool:
    """Whether codes are a tuple of grids, as of a VQ-VAE-2."""
    return hasattr(tokenizer.config, "grid_sizes")


def tokenizer_levels(tokenizer: PreTrainedModel) -> tuple[Level, ...]:
    """The levels of an image tokenizer, top first."""
    config = tokenizer.config
    if not is_hierarchical(tokenizer):
        latents = getattr(config, "latents_per_position", 1)
        shape = (config.grid_size, config.grid_size, *((latents,) if latents > 1 else ()))
        return (Level(shape, config.num_embeddings, tokenizer),)
    levels: Any = tokenizer.levels  # bottom first
    return tuple(
        Level((side, side), config.num_embeddings, owner)
        for side, owner in zip(config.grid_sizes, reversed(levels), strict=True)
    )


def upper_levels(prior: PreTrainedConfig, number: int) -> tuple[int, ...]:
    """The numbers, from 0 at the top, of the levels that the prior of level `number` is conditioned on."""
    return tuple(number - (factor.bit_length() - 1) for _, factor in prior.upper_grids)


def check_tokenizer(tokenizer: Any) -> None:
    """Raises if `tokenizer` is no image tokenizer."""
    config = getattr(tokenizer, "config", None)
    known = hasattr(config, "num_embeddings") and (hasattr(config, "grid_sizes") or hasattr(config, "grid_size"))
    if not known or not hasattr(tokenizer, "encode") or not hasattr(tokenizer, "decode"):
        raise TypeError(f"vqvae must be a VQVAE, VQVAE2 or DiscreteVAE, got {type(tokenizer).__name__}.")


def check_priors(tokenizer: PreTrainedModel, priors: Sequence[Any]) -> None:
    """Raises if there is not one prior for each level, or if one disagrees with its level in sizes or codebook.

    Args:
        tokenizer: The image tokenizer.
        priors: For each level its prior, top first, with `None` for those not given.

    Raises:
        TypeError: A prior is no PixelCNN.
        ComponentsDisagreeError: A prior is missing, or was made for other codes; the message names both.
    """
    levels = tokenizer_levels(tokenizer)
    given = [number for number, prior in enumerate(priors) if prior is not None]
    if given != list(range(len(levels))):
        if len(levels) > len(priors):
            raise ComponentsDisagreeError(f"the vqvae has {len(levels)} levels; a pipeline has {len(priors)} at most.")
        needed, found = ([prior_name(number) for number in numbers] for numbers in (range(len(levels)), given))
        raise ComponentsDisagreeError(
            f"the vqvae has {len(levels)} level(s), so it needs the priors {', '.join(needed)}, top first; got "
            f"{', '.join(found) or 'none'}."
        )
    for number, level in enumerate(levels):
        name, prior = prior_name(number), priors[number]
        if not hasattr(prior, "generate") or not hasattr(getattr(prior, "config", None), "upper_grids"):
            raise TypeError(f"{name} must be a PixelCNN, got {type(prior).__name__}.")
        _check_codes(name, prior.config, level)
        _check_conditions(name, prior.config, number, levels)
    check_classes([prior.config for prior in priors[: len(levels)]])


def prior_name(number: int) -> str:
    """The component's name of the prior of a level, from 0 at the top: `prior`, `prior_2`, ..."""
    return "prior" if number == 0 else f"prior_{number + 1}"


def check_sequence_prior(tokenizer: PreTrainedModel, prior: Any) -> None:
    """Raises if a prior does not draw the sequences of codes of a tokenizer of sound.

    Raises:
        TypeError: The prior is no WaveNet.
        ComponentsDisagreeError: It was made for other codes; the message names both.
    """
    if not hasattr(prior, "generate") or not hasattr(getattr(prior, "config", None), "condition_factor"):
        raise TypeError(f"prior must be a WaveNet, got {type(prior).__name__}.")
    if prior.config.condition_factor is not None:
        raise ComponentsDisagreeError(
            f"prior is conditioned on a slower sequence (condition_factor={prior.config.condition_factor}); the vqvae "
            "has one sequence of codes only."
        )
    _check_codebook("prior", prior.config, tokenizer.config.num_embeddings, tokenizer)
    check_classes([prior.config])


def _check_codes(name: str, prior: PreTrainedConfig, level: Level) -> None:
    found = (*prior.grid_size, *prior.latent_axes)
    if found != level.shape:
        raise ComponentsDisagreeError(
            f"{name} draws grids of {_in_words(found)} codes (grid_height, grid_width, latents_per_position), those "
            f"of the vqvae are {_in_words(level.shape)} on its level. Give the priors top first."
        )
    _check_codebook(name, prior, level.num_embeddings, level.owner)


def _in_words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _check_codebook(name: str, prior: PreTrainedConfig, num_embeddings: int, owner: nn.Module) -> None:
    if prior.num_embeddings != num_embeddings:
        raise ComponentsDisagreeError(
            f"{name} draws codes from 0 to {prior.num_embeddings - 1} (num_embeddings={prior.num_embeddings}), the "
            f"vqvae has num_embeddings={num_embeddings} codes. Use the vqvae that it was trained with."
        )
    if prior.codebook_id is None:
        return
    found = codebook_id(owner)
    if prior.codebook_id != found:
        raise ComponentsDisagreeError(
            f"{name} was trained on the codes of codebook {prior.codebook_id!r} (config.codebook_id), the vqvae has "
            f"codebook {found!r} on its level. Their codes mean different things: use the vqvae it was trained with."
        )


def _check_conditions(name: str, prior: PreTrainedConfig, number: int, levels: Sequence[Level]) -> None:
    """A lower level's prior sees the level right above it, and maybe others further up, top first."""
    upper = upper_levels(prior, number)
    in_order = upper == tuple(sorted(set(upper))) and all(above >= 0 for above in upper)
    last, expected = (), "none: it is the top"
    if number > 0:
        last = (number - 1,)
        expected = f"those of levels above it, top first, with {prior_name(number - 1)}'s the last (factor 2)"
    if not in_order or upper[-1:] != last:
        raise ComponentsDisagreeError(
            f"{name} is conditioned on grids smaller by the factors {list(prior.condition_factors or ())} "
            f"(condition_factors); it must be conditioned on {expected}."
        )
    for above, (size, _) in zip(upper, prior.upper_grids, strict=True):
        if size != levels[above].num_embeddings:
            raise ComponentsDisagreeError(
                f"{name} is conditioned on codes of a codebook of {size} (condition_num_embeddings), the vqvae has "
                f"num_embeddings={levels[above].num_embeddings}."
            )


def check_classes(priors: Sequence[PreTrainedConfig]) -> None:
    """Raises if priors disagree in number or names of their classes. A lower one may have no classes at all."""
    named: dict[int, str] = {}
    counts = {prior_name(number): prior.num_classes for number, prior in enumerate(priors) if prior.num_classes}
    if len(set(counts.values())) > 1:
        raise ComponentsDisagreeError(
            f"the priors have different classes: {', '.join(f'{n} num_classes={c}' for n, c in counts.items())}."
        )
    for number, prior in enumerate(priors):
        names = label_names(prior) if prior.num_classes else {}
        if names and sorted(names) != list(range(prior.num_classes)):
            raise ComponentsDisagreeError(
                f"{prior_name(number)} has num_classes={prior.num_classes} and {len(names)} names in id2label: give "
                f"one for each number from 0 to {prior.num_classes - 1}."
            )
        if names and named and names != named:
            raise ComponentsDisagreeError(f"{prior_name(number)} gives the classes other names than a prior above it.")
        named = names or named


def check_classifier(
    classifier: Any, processor: Any, tokenizer: PreTrainedConfig, num_classes: int | None, names: dict[int, str]
) -> None:
    """Raises if the classifier reads other pictures than the tokenizer makes, or knows other classes.

    Args:
        classifier: An image classification model.
        processor: Its image processor, if it has one.
        tokenizer: Config of the image tokenizer.
        num_classes: Classes of the priors, if they have any.
        names: Their names, if they have any.
    """
    config: Any = getattr(classifier, "config", None)
    if not callable(classifier) or not hasattr(config, "num_labels"):
        raise TypeError(
            f"classifier must be a transformers image classification model, got {type(classifier).__name__}."
        )
    if num_classes is not None and config.num_labels != num_classes:
        raise ComponentsDisagreeError(
            f"the classifier knows num_labels={config.num_labels} classes, the priors num_classes={num_classes}. Use "
            "a classifier of the priors' classes."
        )
    theirs = label_names(config)
    numbers = {name: number for number, name in theirs.items()}
    for number, name in names.items():
        if name in numbers and theirs.get(number) != name:
            raise ComponentsDisagreeError(
                f"{name!r} is class {number} of the priors and class {numbers[name]} of the classifier (id2label)."
            )
    fields = ("num_channels",) if processor is not None else ("num_channels", "image_size")
    for field in fields:
        expected, found = getattr(config, field, None), getattr(tokenizer, field)
        if isinstance(expected, int) and expected != found:
            raise ComponentsDisagreeError(
                f"the classifier reads pictures with {field}={expected}, the vqvae makes them with {field}={found}"
                + (": give its image processor as classifier_processor." if field == "image_size" else ".")
            )
