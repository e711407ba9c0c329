"""What a card says of each kind of model before anything is known about its training: what it is and how to use it."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mosaics.cards import citations


@dataclass(frozen=True)
class ModelFamily:
    """The kind of a model.

    Args:
        tags: Tags of the header, besides `mosaics`.
        summary: One sentence, from the model.
        use: A program that loads it from a repository and uses it, from the model and the repository's id.
        limits: What follows from its configuration, a sentence each.
        citations: BibTeX entries.
        pipeline_tag: The Hub's name of the task, where one fits.
        task: What evaluations are filed under in the header.
        library_name: Whose library the Hub names; `mosaics` unless transformers' `pipeline` has to find it there.
    """

    tags: tuple[str, ...]
    summary: Callable[[Any], str]
    use: Callable[[Any, str], str]
    limits: Callable[[Any], list[str]]
    citations: tuple[str, ...]
    task: str
    pipeline_tag: str | None = None
    library_name: str = "mosaics"


def family_of(model: Any) -> ModelFamily:
    """The family of a model or pipeline, by its class; that of an unknown class says only how it is loaded."""
    return next((FAMILIES[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in FAMILIES), OTHER)


def _load(model: Any, repo_id: str, name: str = "model", imports: str = "") -> str:
    kind = type(model)
    return f'{imports}{_import_line(kind)}\n\n{name} = {kind.__name__}.from_pretrained("{repo_id}").eval()\n'


def _import_line(kind: type) -> str:
    """How the exact class is imported, from the library's own name if it is there."""
    library = kind.__module__.partition(".")[0]
    if library not in ("mosaics", "transformers"):
        return f"# {kind.__name__} is a class of the training script."
    public = getattr(sys.modules[library], kind.__name__, None) is kind
    return f"from {library if public else kind.__module__} import {kind.__name__}"


# Image tokenizers


def _pictures_to_codes(kind: str) -> Callable[[Any], str]:
    def summary(model: Any) -> str:
        config = model.config
        side = config.image_size // config.downsample_factor
        return (
            f"A {kind}: pictures of {config.image_size} × {config.image_size} pixels to grids of {side} × {side} "
            f"codes, of {config.num_embeddings:,}, and back."
        )

    return summary


def _levels_of_codes(model: Any) -> str:
    config = model.config
    grids = ", ".join(f"{side} × {side}" for side in config.grid_sizes)
    return (
        f"A VQ-VAE-2: pictures of {config.image_size} × {config.image_size} pixels to {config.num_levels} grids of "
        f"codes, {grids}, of {config.num_embeddings:,} each, and back."
    )


def _use_image_tokenizer(model: Any, repo_id: str) -> str:
    config, kind = model.config, type(model).__name__
    shape = f"2, {config.num_channels}, {config.image_size}, {config.image_size}"
    grids = "a tuple of grids, top first" if kind == "VQVAE2" else "(B, h, w)"
    return (
        _load(model, repo_id, "tokenizer", "import torch\n")
        + f"pictures = torch.rand({shape})  # (B, C, H, W) in [0, 1]\n"
        + "with torch.no_grad():\n"
        + f"    codes = tokenizer.encode(pictures)  # {grids}\n"
        + "    reconstructions = tokenizer.decode(codes)  # as the pictures\n"
    )


def _limits_of_image_tokenizer(model: Any) -> list[str]:
    config = model.config
    return [
        f"It is meant for pictures of {config.image_size} × {config.image_size} pixels with {config.num_channels} "
        f"channels; other heights and widths must be multiples of {config.downsample_factor}.",
        "It keeps of a picture what its codes can say.",
    ]


def _image_tokenizer(kind: str, summary: Callable[[Any], str], tags: tuple[str, ...], *papers: str) -> ModelFamily:
    return ModelFamily(
        tags=(*tags, "image-tokenizer"),
        summary=summary,
        use=_use_image_tokenizer,
        limits=_limits_of_image_tokenizer,
        citations=papers,
        task="image-to-image",
        pipeline_tag="image-feature-extraction",
    )


# Sound


def _summary_of_audio_vqvae(model: Any) -> str:
    config = model.config
    return (
        f"A VQ-VAE of sound: waveforms of {config.sampling_rate:,} samples a second to {config.codes_per_second:g} "
        f"codes a second, of {config.num_embeddings:,}, and back."
    )


def _use_audio_vqvae(model: Any, repo_id: str) -> str:
    length = 16 * model.config.downsample_factor
    return (
        _load(model, repo_id, "tokenizer", "import torch\n")
        + f"waveforms = 2 * torch.rand(2, 1, {length}) - 1  # (B, 1, T) in [-1, 1]\n"
        + "with torch.no_grad():\n"
        + "    codes = tokenizer.encode(waveforms)  # (B, t)\n"
        + "    reconstructions = tokenizer.decode(codes)  # as the waveforms\n"
    )


def _limits_of_audio_vqvae(model: Any) -> list[str]:
    config = model.config
    return [
        f"It is meant for one channel at {config.sampling_rate:,} samples a second; lengths must be multiples of "
        f"{config.downsample_factor} samples.",
        "The samples are independent given the codes: a waveform is decoded in one pass.",
    ]


# Priors


def _summary_of_pixelcnn(model: Any) -> str:
    config = model.config
    given = " and their classes" if config.num_classes else ""
    return (
        f"A gated PixelCNN: a prior over grids of {config.grid_height} × {config.grid_width} codes, of "
        f"{config.num_embeddings:,}{given}."
    )


def _use_pixelcnn(model: Any, repo_id: str) -> str:
    config, arguments = model.config, ["2", "seed=0"]
    if config.num_classes:
        arguments.append("class_labels=0")
    if config.upper_grids:
        grids = (
            f"torch.zeros(2, {config.grid_height // f}, {config.grid_width // f}).long()"
            for _, f in config.upper_grids
        )
        arguments.append(f"conditions=[{', '.join(grids)}]")
    return (
        _load(model, repo_id, "prior", "import torch\n\n" if config.upper_grids else "")
        + f"codes = prior.generate({', '.join(arguments)})  # (2, {config.grid_height}, {config.grid_width})\n"
    )


def _summary_of_wavenet(model: Any) -> str:
    return f"A WaveNet: a prior over sequences of codes, of {model.config.num_embeddings:,}."


def _use_wavenet(model: Any, repo_id: str) -> str:
    config, arguments = model.config, ["2", "seed=0"]
    if config.num_classes:
        arguments.append("class_labels=0")
    if config.condition_factor:
        arguments.append("conditions=torch.zeros(2, 8).long()")
    else:
        arguments.insert(1, "length=64")
    return (
        _load(model, repo_id, "prior", "import torch\n\n" if config.condition_factor else "")
        + f"codes = prior.generate({', '.join(arguments)})  # (2, T)\n"
    )


def _limits_of_prior(model: Any) -> list[str]:
    belongs = getattr(model.config, "codebook_id", None)
    return [
        "It draws codes, which mean something only to the tokenizer it was trained with"
        + (f" (codebook `{belongs}`)." if belongs else "."),
    ]


def _summary_of_dalle(model: Any) -> str:
    config = model.config
    return (
        f"A DALL-E transformer: a prior over {config.max_text_length} text tokens, of {config.text_vocab_size:,}, and "
        f"then {config.image_grid_size} × {config.image_grid_size} image tokens, of {config.image_vocab_size:,}."
    )


def _use_dalle(model: Any, repo_id: str) -> str:
    config = model.config
    return (
        _load(model, repo_id, "transformer", "import torch\n")
        + f"text = torch.full((1, {config.max_text_length}), {config.pad_token_id})  # tokens; here no text at all\n"
        + "codes = transformer.generate(text, num_candidates=2, seed=0)  "
        + f"# (2, {config.image_grid_size}, {config.image_grid_size})\n"
    )


# Pipelines


def _summary_of_dalle_pipeline(pipe: Any) -> str:
    size = pipe.dvae.config.image_size
    choice = " CLIP chooses among candidates." if pipe.clip is not None else ""
    return f"A DALL-E pipeline: sentences to pictures of {size} × {size} pixels.{choice}"


def _use_dalle_pipeline(pipe: Any, repo_id: str) -> str:
    candidates = "" if pipe.clip is None else "num_candidates=4, "  # there is nothing to choose with
    return (
        "from mosaics import DallePipeline\n\n"
        f'pipe = DallePipeline.from_pretrained("{repo_id}")\n'
        f'pipe("a lion on a blue background", {candidates}seed=0).images[0].save("lion.png")\n'
    )


def _limits_of_dalle_pipeline(pipe: Any) -> list[str]:
    return [
        f"It reads at most {pipe.transformer.config.max_text_length} text tokens, and knows the words and things of "
        "its training data.",
        "What it draws has not been checked for bias or harm beyond what is said here.",
    ]


def _summary_of_vqvae_pipeline(pipe: Any) -> str:
    size, classes = pipe.vqvae.config.image_size, pipe.num_classes
    of = f" of {classes:,} classes" if classes else ""
    return f"An image tokenizer with its priors: draws pictures{of}, {size} × {size} pixels, and reconstructs others."


def _use_vqvae_pipeline(pipe: Any, repo_id: str) -> str:
    name = next(iter(pipe.class_names.values()), 0)
    label = f"{json.dumps(name)}, " if pipe.num_classes else ""
    return (
        "from mosaics import VQVAEPipeline\n\n"
        f'pipe = VQVAEPipeline.from_pretrained("{repo_id}")\n'
        f'pipe({label}num_images=2, seed=0).images[0].save("drawn.png")\n'
        'pipe.reconstruct("drawn.png").images[0].save("reconstruction.png")\n'
    )


def _limits_of_vqvae_pipeline(pipe: Any) -> list[str]:
    size = pipe.vqvae.config.image_size
    return [f"It draws and reads pictures of {size} × {size} pixels, of the kind of its training data."]


def _summary_of_audio_pipeline(pipe: Any) -> str:
    classes = f" of {pipe.num_classes:,} classes" if pipe.num_classes else ""
    return f"A VQ-VAE of sound with its prior: draws sounds{classes} of {pipe.sampling_rate:,} samples a second."


def _use_audio_pipeline(pipe: Any, repo_id: str) -> str:
    name = next(iter(pipe.class_names.values()), 0)
    label = f"{json.dumps(name)}, " if pipe.num_classes else ""
    return (
        "from mosaics import AudioVQVAEPipeline\nfrom mosaics.data import write_sound\n\n"
        f'pipe = AudioVQVAEPipeline.from_pretrained("{repo_id}")\n'
        f"output = pipe({label}audio_length_in_s=1.0, seed=0)\n"
        'write_sound("sound.wav", output.audios[0], output.sampling_rate)\n'
    )


# Everything else


OTHER = ModelFamily(
    tags=(),
    summary=lambda model: f"A `{type(model).__name__}`.",
    use=_load,
    limits=lambda model: [],
    citations=(),
    task="other",
    library_name="transformers",
)

DALLE_TRANSFORMER = ModelFamily(
    tags=("dall-e", "prior"),
    summary=_summary_of_dalle,
    use=_use_dalle,
    limits=_limits_of_prior,
    citations=(citations.DALLE,),
    task="text-to-image",
)

FAMILIES: Mapping[str, ModelFamily] = {
    "DiscreteVAE": _image_tokenizer(
        "discrete VAE", _pictures_to_codes("discrete VAE"), ("discrete-vae", "dall-e"), citations.DALLE
    ),
    "VQVAE": _image_tokenizer("VQ-VAE", _pictures_to_codes("VQ-VAE"), ("vq-vae",), citations.VQVAE),
    "VQVAE2": _image_tokenizer("VQ-VAE-2", _levels_of_codes, ("vq-vae-2",), citations.VQVAE2),
    "VQGAN": _image_tokenizer("VQGAN", _pictures_to_codes("VQGAN"), ("vqgan",), citations.VQGAN),
    "AudioVQVAE": ModelFamily(
        tags=("vq-vae", "audio", "audio-tokenizer"),
        summary=_summary_of_audio_vqvae,
        use=_use_audio_vqvae,
        limits=_limits_of_audio_vqvae,
        citations=(citations.VQVAE,),
        task="audio-to-audio",
        pipeline_tag="audio-to-audio",
    ),
    "PixelCNN": ModelFamily(
        tags=("pixelcnn", "prior"),
        summary=_summary_of_pixelcnn,
        use=_use_pixelcnn,
        limits=_limits_of_prior,
        citations=(citations.PIXELCNN,),
        task="unconditional-image-generation",
    ),
    "WaveNet": ModelFamily(
        tags=("wavenet", "prior"),
        summary=_summary_of_wavenet,
        use=_use_wavenet,
        limits=_limits_of_prior,
        citations=(citations.WAVENET,),
        task="other",
    ),
    "DalleTransformer": DALLE_TRANSFORMER,
    "DallePytorchVAE": _image_tokenizer(
        "discrete VAE of DALLE-pytorch",
        _pictures_to_codes("discrete VAE of DALLE-pytorch"),
        ("discrete-vae", "dall-e"),
        citations.DALLE,
    ),
    "DallePytorchTransformer": DALLE_TRANSFORMER,
    "DallePipeline": ModelFamily(
        tags=("dall-e",),
        summary=_summary_of_dalle_pipeline,
        use=_use_dalle_pipeline,
        limits=_limits_of_dalle_pipeline,
        citations=(citations.DALLE,),
        task="text-to-image",
        pipeline_tag="text-to-image",
        library_name="transformers",  # `pipeline(model=...)` without a task refuses any other
    ),
    "VQVAEPipeline": ModelFamily(
        tags=("vq-vae",),
        summary=_summary_of_vqvae_pipeline,
        use=_use_vqvae_pipeline,
        limits=_limits_of_vqvae_pipeline,
        citations=(citations.VQVAE, citations.VQVAE2),
        task="unconditional-image-generation",
        pipeline_tag="unconditional-image-generation",
    ),
    "AudioVQVAEPipeline": ModelFamily(
        tags=("vq-vae", "wavenet", "audio"),
        summary=_summary_of_audio_pipeline,
        use=_use_audio_pipeline,
        limits=lambda pipe: [],
        citations=(citations.VQVAE, citations.WAVENET),
        task="other",
    ),
}
