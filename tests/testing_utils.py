"""Tiny instances of the real classes, shared by the tests."""

import torch

from mosaics.models.dvae import DiscreteVAE, DiscreteVAEConfig


def tiny_dvae(**fields) -> DiscreteVAE:
    """A discrete VAE of 16x16 pictures and 4x4 codes."""
    defaults = {
        "image_size": 16,
        "num_embeddings": 32,
        "codebook_dim": 8,
        "hidden_size": 16,
        "num_groups": 3,
        "residual_gain": 0.5,
    }
    torch.manual_seed(0)
    return DiscreteVAE(DiscreteVAEConfig(**(defaults | fields)))


CAPTIONS = (
    "a lion on a blue background",
    "three copies of a beetle above a balloon",
    "a small red house beside a green tree",
    "two yellow stars on black",
    "an orange fish under a purple boat",
)


def tiny_tokenizer(max_length: int = 24):
    """A byte-pair tokenizer trained on five captions."""
    from mosaics.data.captions import train_tokenizer

    return train_tokenizer(CAPTIONS, vocab_size=300, max_length=max_length)


def tiny_dalle(tokenizer=None, dvae=None, **fields):
    """A transformer of two layers over the tokens of `tiny_tokenizer` and the codes of `tiny_dvae`."""
    from mosaics.models.dalle import DalleTransformer, DalleTransformerConfig

    defaults = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "text_vocab_size": 300 if tokenizer is None else len(tokenizer),
        "max_text_length": 12 if tokenizer is None else tokenizer.model_max_length,
        "image_vocab_size": 32 if dvae is None else dvae.config.num_embeddings,
        "image_grid_size": 4 if dvae is None else dvae.config.grid_size,
        "conv_kernel_size": 3,
        "initializer_range": 0.3,
    }
    torch.manual_seed(1)
    return DalleTransformer(DalleTransformerConfig(**(defaults | fields))).eval()


def tiny_pixelcnn(**fields):
    """A PixelCNN of four layers over 4x6 grids of 16 codes, which reach over the whole grid."""
    from mosaics.models.pixelcnn import PixelCNN, PixelCNNConfig

    defaults = {
        "num_embeddings": 16,
        "grid_height": 4,
        "grid_width": 6,
        "hidden_size": 12,
        "num_layers": 4,
        "first_kernel_size": 5,
        "kernel_size": 3,
        "num_attention_heads": 2,
        "num_conditioning_blocks": 1,
        "initializer_range": 0.3,
    }
    torch.manual_seed(3)
    return PixelCNN(PixelCNNConfig(**(defaults | fields))).eval()


def tiny_wavenet(**fields):
    """A WaveNet of two stacks of three layers over 16 codes; a code is predicted from the 15 before it."""
    from mosaics.models.wavenet import WaveNet, WaveNetConfig

    defaults = {
        "num_embeddings": 16,
        "hidden_size": 12,
        "skip_size": 20,
        "num_stacks": 2,
        "layers_per_stack": 3,
        "initializer_range": 0.3,
    }
    torch.manual_seed(4)
    return WaveNet(WaveNetConfig(**(defaults | fields))).eval()


def tiny_clip(tokenizer, image_size: int = 16):
    """A CLIP that shares the tokenizer, and its image processor."""
    from transformers import CLIPConfig, CLIPModel

    from mosaics.pipelines.reranking import clip_text_config

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = clip_text_config(tokenizer, tokenizer.model_max_length, **sizes).to_dict()
    vision = {**sizes, "image_size": image_size, "patch_size": 4}
    torch.manual_seed(2)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    return clip, tiny_clip_processor(image_size)


def tiny_clip_processor(image_size: int = 16):
    """The image processor of `tiny_clip`."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    size = {"height": image_size, "width": image_size}
    return CLIPImageProcessorPil(size=size, crop_size=size)


def tiny_pipeline(with_clip: bool = True, **fields):
    """A DALL-E pipeline of tiny untrained parts, without a progress bar."""
    from mosaics.pipelines.dalle import DallePipeline

    tokenizer, dvae = tiny_tokenizer(), tiny_dvae().eval()
    clip, processor = tiny_clip(tokenizer) if with_clip else (None, None)
    pipe = DallePipeline(tokenizer, tiny_dalle(tokenizer, dvae, **fields), dvae, clip, processor)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_vqvae2(num_levels: int = 2, **fields):
    """A VQ-VAE-2 with grids of 2x2, 4x4, ... of 16 codes, which are spread out."""
    from mosaics.models.vqvae2 import VQVAE2, VQVAE2Config

    defaults = {"image_size": 2 ** (num_levels + 2), "num_embeddings": 16, "embedding_dim": 4, "hidden_size": 12}
    torch.manual_seed(5)
    fields = defaults | {"num_residual_layers": 1, "residual_hidden_size": 6, "num_levels": num_levels} | fields
    model = VQVAE2(VQVAE2Config(**fields)).eval()
    for level in model.levels:
        level.quantizer.codebook.normal_()
    return model


def tiny_priors(num_levels: int = 2, **fields) -> list:
    """A PixelCNN for each level of `tiny_vqvae2`, top first, each conditioned on all levels above it."""
    priors = []
    for number in range(num_levels):
        side = 2 ** (number + 1)
        sizes = {"grid_height": side, "grid_width": side, "initializer_range": 1.0}
        if number:
            sizes["condition_num_embeddings"] = [16] * number
            sizes["condition_factors"] = [2**above for above in range(number, 0, -1)]
        priors.append(tiny_pixelcnn(**(sizes | fields)))
    return priors


def tiny_classifier(num_labels: int = 3, **fields):
    """A ConvNeXt that reads pictures of 16x16 pixels as they are."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    sizes = {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 4, "image_size": 16}
    torch.manual_seed(6)
    config = ConvNextConfig(**(sizes | {"num_labels": num_labels, "initializer_range": 0.5} | fields))
    return ConvNextForImageClassification(config).eval()


def tiny_vqvae_pipeline(num_levels: int = 2, classifier=None, **fields):
    """A VQ-VAE-2 pipeline of tiny untrained parts, without a progress bar; `fields` are those of the priors."""
    from mosaics.pipelines.vqvae import VQVAEPipeline

    pipe = VQVAEPipeline(tiny_vqvae2(num_levels), *tiny_priors(num_levels, **fields), classifier=classifier)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_audio_vqvae(**fields):
    """A VQ-VAE of sound with eight samples a code, its codes spread out."""
    from mosaics.models.audio_vqvae import AudioVQVAE, AudioVQVAEConfig

    defaults = {"num_embeddings": 16, "embedding_dim": 4, "hidden_size": 8, "decoder_hidden_size": 6}
    torch.manual_seed(0)
    fields = defaults | {"num_downsamples": 3, "num_dilations": 3, "num_blocks": 1, "num_sample_values": 32} | fields
    model = AudioVQVAE(AudioVQVAEConfig(**fields))
    with torch.no_grad():
        model.quantizer.codebook.normal_()
    return model


def tiny_audio_pipeline(**fields):
    """A pipeline of sound at 1,000 samples a second, of tiny untrained parts; `fields` are those of the prior."""
    from mosaics.pipelines.audio_vqvae import AudioVQVAEPipeline

    vqvae, prior = tiny_audio_vqvae(sampling_rate=1000), tiny_wavenet(**({"initializer_range": 1.0} | fields))
    with torch.no_grad():  # codes that sounds really have
        vqvae.quantizer.codebook.copy_(vqvae.encoder(torch.rand(1, 1, 8 * 16) - 0.5)[0].T)
    pipe = AudioVQVAEPipeline(vqvae, prior)
    pipe.set_progress_bar_config(disable=True)
    return pipe
