"""Sampling speed at equal size: Mosaics, transformers, dalle-pytorch; one thread, process time, float32.

    python tests/benchmarks/bench_sampling.py                  # 256 tokens of a picture, a few minutes
    python tests/benchmarks/bench_sampling.py --tokens 1024    # whole pictures

Every engine has random weights of the same size: 512 wide, 8 layers, 8 heads, 256 text and 1024 image tokens, 16,384
+ 8,192 tokens of vocabulary. They take turns, and the best of `--repeats` runs counts, the prompt and all preparation
included.
Speeds depend on the machine and on what else it does; the ratios of one run are what to compare.

dalle-pytorch 1.6.6 is optional (`pip install dalle-pytorch==1.6.6 --no-deps` and `axial_positional_embedding einops
rotary-embedding-torch ftfy omegaconf`). It is timed as shipped, where `use_cache=True` has no effect because
`forward_with_cond_scale` drops the cache, and mended, with the cache passed on.
"""

import argparse
import importlib.util
import sys
import time
import types
import warnings
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mosaics.models.dalle import DalleTransformer, DalleTransformerConfig

TEXT_LENGTH, GRID, TEXT_VOCAB, IMAGE_VOCAB = 256, 32, 16384, 8192
WIDTH, LAYERS, HEADS = 512, 8, 8
SHIPPED_TOKENS = 4  # dalle-pytorch as shipped computes the whole sequence for each token: seconds each


class EnoughTokens(Exception):
    """Ends a run after the tokens that are timed."""


def mosaics_engine() -> tuple[DalleTransformer, Callable]:
    model = DalleTransformer(DalleTransformerConfig()).eval()

    def run(prompt, candidates, tokens):
        def stop(step):
            if step.position + 1 == tokens:
                raise EnoughTokens

        try:
            model.generate(prompt, candidates, seed=0, batch_size=candidates, callback=stop)
        except EnoughTokens:
            pass

    return model, run


def transformers_engine(model) -> Callable:
    model = model.eval()

    def run(prompt, candidates, tokens):
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            top_k=0,
            num_return_sequences=candidates,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
            eos_token_id=None,
        )

    return run


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=TEXT_VOCAB + IMAGE_VOCAB,
        hidden_size=WIDTH,
        intermediate_size=1376,  # three matrices of 8/3 x 512, rounded to 32: as many parameters as two of 4 x 512
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=TEXT_LENGTH + GRID**2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=TEXT_VOCAB + IMAGE_VOCAB,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=TEXT_LENGTH + GRID**2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def dalle_pytorch_engines() -> tuple[Callable, Callable] | None:
    """(as shipped, mended), or None where dalle-pytorch is not installed."""
    if importlib.util.find_spec("dalle_pytorch") is None:
        return None
    # Its package imports, at the top, other tokenizers and autoencoders than the ones used here; where they are not
    # installed, empty modules let the import pass.
    for name, attributes in {
        "youtokentome": (),
        "taming": (),
        "taming.models": (),
        "taming.models.vqgan": ("VQModel", "GumbelVQ"),
        "torchvision": ("transforms",),
    }.items():
        if name.split(".")[0] in sys.modules or importlib.util.find_spec(name.split(".")[0]) is None:
            module = types.ModuleType(name)
            for attribute in attributes:
                setattr(module, attribute, types.ModuleType(attribute))
            sys.modules.setdefault(name, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dalle_pytorch import DALLE, DiscreteVAE

    class Codes(DiscreteVAE):
        def decode(self, indices):
            return indices

    class MendedDALLE(DALLE):
        def forward_with_cond_scale(self, *args, cond_scale=1, cache=None, **kwargs):
            return self(*args, cache=cache, **kwargs)

    def engine(model_class):
        vae = Codes(image_size=8 * GRID, num_layers=3, num_tokens=IMAGE_VOCAB, codebook_dim=8, hidden_dim=8)
        model = model_class(
            dim=WIDTH, vae=vae, num_text_tokens=TEXT_VOCAB, text_seq_len=TEXT_LENGTH, depth=LAYERS, heads=HEADS
        ).eval()

        def run(prompt, candidates, tokens):
            model.image_seq_len = tokens
            model.generate_images(prompt.repeat(candidates, 1), filter_thres=0.0, use_cache=True)

        return run

    return engine(DALLE), engine(MendedDALLE)


def best_rates(engines: dict[str, tuple[Callable, int]], prompt, candidates: int, repeats: int) -> dict[str, float]:
    """Tokens a second of process time of each engine; they take turns."""
    seconds = dict.fromkeys(engines, float("inf"))
    for _ in range(repeats):
        for name, (run, tokens) in engines.items():
            start = time.process_time()
            run(prompt, candidates, tokens)
            seconds[name] = min(seconds[name], time.process_time() - start)
    return {name: candidates * tokens / seconds[name] for name, (_, tokens) in engines.items()}


def machine() -> tuple[float, float]:
    """Measured (bytes a second read, float32 operations a second) of one thread."""
    block = torch.randn(64_000_000)
    square = torch.randn(2048, 2048)
    packed = torch.ops.mkldnn._reorder_linear_weight(square, 2048)
    read = min(timed(lambda: block.sum()) for _ in range(5))
    multiply = min(
        min(
            timed(lambda: square @ square),
            timed(lambda: torch.ops.mkldnn._linear_pointwise(square, packed, None, "none", [], "")),
        )
        for _ in range(5)
    )
    return block.numel() * 4 / read, 2 * 2048**3 / multiply


def timed(action: Callable) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def roofline(model: DalleTransformer, candidates: int, tokens: int, bandwidth: float, flops: float) -> float:
    """Tokens a second if the reads, or the products if they take longer, of a step ran at the machine's rate."""
    config = model.config
    weights = sum(layer.numel() for name, layer in model.layers.named_parameters() if layer.dim() == 2)
    weights += model.image_head.weight.numel()
    visible = 0.0  # image keys read by a candidate, mean over the steps, summed over the layers
    for pattern in config.layer_patterns:
        for position in range(tokens):
            visible += {
                "row": min(position, GRID) + 1,
                "column": position // GRID + 1,
                "conv": min(position + 1, 61),
                "full": position + 1,
            }[pattern] / tokens
    read = 4 * (weights + 2 * WIDTH * (LAYERS * TEXT_LENGTH + candidates * visible))
    operations = 2 * candidates * (weights + 2 * WIDTH * (LAYERS * TEXT_LENGTH + visible))
    return candidates / max(read / bandwidth, operations / flops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256, help="image tokens of each picture that are timed")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 32], help="pictures of the prompt")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each engine; the best counts")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not 1 <= arguments.tokens <= GRID**2:
        parser.error(f"--tokens must be from 1 to {GRID**2}, got {arguments.tokens}")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    prompt = torch.randint(1, TEXT_VOCAB, (1, TEXT_LENGTH))

    model, mosaics = mosaics_engine()
    engines = {
        "mosaics": (mosaics, arguments.tokens),
        "transformers Llama": (transformers_engine(llama()), arguments.tokens),
        "transformers GPT-2": (transformers_engine(gpt2()), arguments.tokens),
    }
    peers = dalle_pytorch_engines()
    if peers is None:
        print("dalle-pytorch is not installed: left out.")
    else:
        engines["dalle-pytorch mended"] = (peers[1], arguments.tokens)

    bandwidth, flops = machine()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s); read {bandwidth / 1e9:.1f} GB/s, ", end="")
    print(f"float32 products {flops / 1e9:.0f} GFLOP/s; {arguments.tokens} tokens of {GRID**2}")
    for candidates in arguments.candidates:
        rates = best_rates(engines, prompt, candidates, arguments.repeats)
        if peers is not None and candidates == 1:
            rates |= best_rates({"dalle-pytorch shipped": (peers[0], SHIPPED_TOKENS)}, prompt, candidates, 1)
        ceiling = roofline(model, candidates, arguments.tokens, bandwidth, flops)
        print(f"\n{candidates} candidate(s) of one prompt      tok/s   mosaics is")
        for name, rate in rates.items():
            print(f"{name:32}{rate:9.1f}   {rates['mosaics'] / rate:.2f}x")
        print(f"{'roofline of this machine':32}{ceiling:9.1f}   at {100 * rates['mosaics'] / ceiling:.0f} %")


if __name__ == "__main__":
    main()
