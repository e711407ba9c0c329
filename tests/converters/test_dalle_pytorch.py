"""DALLE-pytorch's transformer: the same logits as a second implementation, whatever its options."""

import itertools
import json

import pytest
import torch
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models, pre_tokenizers

import mosaics
from converters.dalle_pytorch_reference import (
    CODES,
    GRID,
    HEAD_SIZE,
    HEADS,
    SIZE,
    TEXT,
    TEXT_TOKENS,
    angles,
    dalle_logits,
    dalle_weights,
    vae_decode,
    vae_weights,
)
from converters.openai_modules import Decoder, Encoder
from converters.taming_reference import Taming, VQGANReference
from mosaics.converters import convert, detect
from mosaics.converters.errors import ForeignFileError, KeyMismatchError, UnsupportedVariantError
from mosaics.converters.text_tokenizers import CLIP_HEADER, CLIP_MERGES, clip_tokenizer
from mosaics.models.codebook_identity import codebook_id
from mosaics.models.dalle.dalle_pytorch import DallePytorchTransformer, DallePytorchTransformerConfig
from mosaics.models.dalle.dalle_pytorch.layers import rotary_angles
from mosaics.models.dalle_pytorch_vae import DallePytorchVAE
from mosaics.models.dvae import DiscreteVAE
from mosaics.models.vqgan import VQGAN

KINDS = ("full", "axial_row", "axial_col", "conv_like")
TEXTS = torch.tensor([[3, 7, 19, 0, 0], [1, 0, 0, 0, 0], [5, 5, 5, 5, 2]])
IMAGES = torch.randint(CODES, (3, GRID**2), generator=torch.Generator().manual_seed(2))
VAE = {"image_size": 16, "num_tokens": CODES, "codebook_dim": 7, "num_layers": 2, "num_resnet_blocks": 1}


def checkpoint(hparams=(), weights=None, **options):
    """What the project's training script saves."""
    reversible = options.get("reversible", False)
    settings = {"num_text_tokens": TEXT_TOKENS, "text_seq_len": TEXT, "dim": SIZE, "depth": 4, "heads": HEADS}
    settings |= {"dim_head": HEAD_SIZE, "reversible": reversible, "attn_types": KINDS, "loss_img_weight": 7}
    vae = {f"vae.{key}": tensor for key, tensor in vae_weights().items()}
    return {
        "hparams": settings | dict(hparams),
        "vae_params": VAE | {"hidden_dim": 6},
        "epoch": 3,
        "version": "1.6.6",
        "vae_class_name": "DiscreteVAE",
        "weights": (dalle_weights(**options) if weights is None else weights) | vae,
        "opt_state": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]},
        "scheduler_state": None,
    }


def converted(tmp_path, **arguments):
    torch.save(checkpoint(**arguments), tmp_path / "dalle.pt")
    convert(tmp_path / "dalle.pt", tmp_path / "out")
    return DallePytorchTransformer.from_pretrained(tmp_path / "out", subfolder="transformer").eval()


@torch.no_grad()
def our_logits(model, texts, images):
    states = model.hidden_states(texts, images)
    return torch.cat([model.text_head(states), model.image_head(states)], dim=-1)


OPTIONS = {
    "defaults": {},
    "learned positions": {"rotary": False},
    "no shift": {"shift": False},
    "neither": {"rotary": False, "shift": False},
    "sandwich": {"sandwich": True},
    "reversible": {"reversible": True},
    "reversible sandwich": {"reversible": True, "sandwich": True, "rotary": False},
    "shared embeddings": {"shared": True},
    "stable": {"stable": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_are_those_of_the_project(tmp_path, name):
    options = dict(OPTIONS[name])
    stable = options.pop("stable", False)
    model = converted(tmp_path, hparams={"stable": stable}, **options)
    expected = dalle_logits(dalle_weights(**options), TEXTS, IMAGES[:, :-1], KINDS, stable)
    logits = our_logits(model, TEXTS, IMAGES[:, :-1])
    assert (logits - expected).abs().max() <= 1e-4 and expected.std() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_each_attention_type_is_the_projects(tmp_path, kind):
    model = converted(tmp_path, hparams={"attn_types": (kind,), "depth": 1}, depth=1)
    expected = dalle_logits(dalle_weights(depth=1), TEXTS, IMAGES[:, :-1], (kind,))
    assert (our_logits(model, TEXTS, IMAGES[:, :-1]) - expected).abs().max() <= 1e-5


def test_attention_types_are_repeated_over_the_layers(tmp_path):
    model = converted(tmp_path, hparams={"attn_types": ("axial_row", "full", "axial_col")})
    assert model.config.layer_attention_types == ("axial_row", "full", "axial_col", "axial_row")


@torch.no_grad()
def test_the_loss_is_the_projects(tmp_path):
    model = converted(tmp_path)
    logits = dalle_logits(dalle_weights(), TEXTS, IMAGES[:, :-1], KINDS)
    boundary = TEXT_TOKENS + TEXT
    targets = torch.where(TEXTS == 0, TEXT_TOKENS + torch.arange(TEXT), TEXTS)
    text = torch.nn.functional.cross_entropy(logits[:, :TEXT, :boundary].flatten(0, 1), targets.flatten())
    image = torch.nn.functional.cross_entropy(logits[:, TEXT:, boundary:].flatten(0, 1), IMAGES.flatten())
    output = model(TEXTS, IMAGES.view(3, GRID, GRID))
    torch.testing.assert_close(output.loss, (text + 7 * image) / 8)
    torch.testing.assert_close(output.image_loss, image)


def uncached(model, text, uniforms, scale, prefix):
    """Sampling with `forward` alone."""
    from mosaics.sampling import draw, guide

    tokens = prefix.flatten()[None]
    with torch.no_grad():
        for position in range(tokens.shape[1], GRID**2):
            logits = model.image_head(model.hidden_states(text, tokens)[:, -1])
            if scale != 1:
                nothing = model.image_head(model.hidden_states(torch.zeros_like(text), tokens)[:, -1])
                logits = guide(logits, nothing, scale)
            drawn = draw(logits, uniforms[None, position], temperature=0.9, top_k=9)
            tokens = torch.cat([tokens, drawn[:, None]], dim=1)
    return tokens.view(GRID, GRID)


@pytest.mark.parametrize("name", ["defaults", "neither", "reversible sandwich", "stable"])
@pytest.mark.parametrize(("scale", "rows"), [(1.0, 0), (2.5, 0), (1.0, 2), (2.5, 3)])
def test_cached_sampling_is_uncached_sampling(tmp_path, name, scale, rows):
    options = dict(OPTIONS[name])
    model = converted(tmp_path, hparams={"stable": options.pop("stable", False)}, **options)
    uniforms = torch.rand(6, GRID**2, generator=torch.Generator().manual_seed(9))
    prefix = IMAGES.view(3, GRID, GRID)[:, :rows]
    drawn = model.generate(
        TEXTS,
        num_candidates=2,
        uniforms=uniforms,
        temperature=0.9,
        top_k=9,
        guidance_scale=scale,
        prefix_indices=prefix if rows else None,
    )
    for row in range(6):
        expected = uncached(model, TEXTS[row // 2][None], uniforms[row], scale, prefix[row // 2])
        assert torch.equal(drawn[row], expected), f"candidate {row}"


def test_a_candidate_is_the_same_in_any_batch(tmp_path):
    model = converted(tmp_path)
    uniforms = torch.rand(9, GRID**2, generator=torch.Generator().manual_seed(4))
    whole = model.generate(TEXTS, num_candidates=3, uniforms=uniforms)
    for batch_size in (1, 2, 5):
        assert torch.equal(model.generate(TEXTS, num_candidates=3, uniforms=uniforms, batch_size=batch_size), whole)


def test_the_rotary_table_of_a_new_model_is_the_projects(tmp_path):
    model = converted(tmp_path)
    torch.testing.assert_close(rotary_angles(model.config), angles(), rtol=1e-6, atol=1e-3)
    new = DallePytorchTransformer(model.config)
    assert torch.equal(new.rotary.angles, rotary_angles(model.config))
    with pytest.raises(ValueError, match="rotary_size is None"):
        rotary_angles(DallePytorchTransformerConfig())


def test_training_reaches_every_weight_and_lowers_the_loss(tmp_path):
    model = converted(tmp_path, reversible=True, hparams={"attn_dropout": 0.1, "ff_dropout": 0.1}).train()
    assert model.layers[0].attention.dropout.p == model.layers[0].feed_forward.dropout.p == 0.1
    model.activation_checkpointing_enable()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(TEXTS, IMAGES.view(3, GRID, GRID)).loss
        loss.backward()
        losses.append(float(loss.detach()))
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.5


def json_tokenizer(path):
    words = ["[UNK]", "a", "red", "lion", "on", "blue", "!"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def test_with_its_tokenizer_it_is_a_whole_pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(mosaics, "DallePytorchTransformer", DallePytorchTransformer, raising=False)
    monkeypatch.setattr(mosaics, "DallePytorchVAE", DallePytorchVAE, raising=False)
    torch.save(checkpoint(), tmp_path / "dalle.pt")
    sources = [tmp_path / "dalle.pt", json_tokenizer(tmp_path / "words.json")]
    assert detect(sources) == "dalle-pytorch"
    report = convert(sources, tmp_path / "pipe")
    assert report.models == {"transformer": "DallePytorchTransformer", "dvae": "DallePytorchVAE"}
    assert set(report.dropped) == {"epoch", "opt_state"}
    pipe = mosaics.DallePipeline.from_pretrained(tmp_path / "pipe")
    pipe.set_progress_bar_config(disable=True)
    output = pipe("a red lion", num_images_per_prompt=2, seed=3, guidance_scale=2.0, output_type="pt")
    assert output.indices.shape == (2, GRID, GRID)
    expected = (vae_decode(vae_weights(), output.indices) * 0.5 + 0.5).clamp(0, 1)
    torch.testing.assert_close(torch.as_tensor(output.images), expected)
    ids = torch.tensor([[1, 2, 3, 0, 0]])
    logits = our_logits(pipe.transformer, ids, output.indices.flatten(1)[:1, :-1])
    assert torch.equal(ids, torch.tensor(pipe.tokenizer("a red lion", padding="max_length")["input_ids"])[None])
    assert logits.isfinite().all()
    assert (
        json.loads((tmp_path / "pipe" / "conversion.json").read_text())["dropped"]["opt_state"] == "state of training"
    )
    card = ModelCard.load(tmp_path / "pipe" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-to-image")
    assert 'DallePipeline.from_pretrained(".")' in card.text and "what was left out" in card.text


def test_without_a_tokenizer_the_card_says_how_to_join_the_parts(tmp_path):
    converted(tmp_path)
    assert not (tmp_path / "out" / "model_index.json").exists()
    assert "DallePipeline(tokenizer, transformer, dvae)" in (tmp_path / "out" / "README.md").read_text()
    vae = DallePytorchVAE.from_pretrained(tmp_path / "out", subfolder="dvae")
    assert vae.config.num_embeddings == CODES


def test_openais_image_tokenizer_inside_of_it_becomes_a_discrete_vae(tmp_path):
    torch.manual_seed(0)
    encoder, decoder = Encoder(codes=CODES), Decoder(codes=CODES)
    saved = checkpoint()
    saved["vae_params"], saved["vae_class_name"] = None, "OpenAIDiscreteVAE"
    weights = {key: tensor for key, tensor in saved["weights"].items() if not key.startswith("vae.")}
    weights |= {f"vae.enc.{key}": tensor for key, tensor in encoder.state_dict().items()}
    weights |= {f"vae.dec.{key}": tensor for key, tensor in decoder.state_dict().items()}
    # 256 pixels are 32 x 32 codes: tables of that size.
    weights["transformer.pos_emb"] = torch.zeros(1, TEXT + 1 + 32**2, 6)
    saved["weights"] = weights
    torch.save(saved, tmp_path / "dalle.pt")
    convert(tmp_path / "dalle.pt", tmp_path / "out")
    dvae = DiscreteVAE.from_pretrained(tmp_path / "out", subfolder="dvae").eval()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(dvae.encode(pixels), encoder(0.8 * pixels + 0.1).argmax(1))
    transformer = DallePytorchTransformer.from_pretrained(tmp_path / "out", subfolder="transformer")
    assert transformer.config.image_grid_size == 32 and transformer.config.codebook_id.startswith(f"{CODES}x6-")


@pytest.mark.parametrize("kind", ["vector", "gumbel"])
@torch.no_grad()
def test_a_vqgan_inside_of_it_becomes_a_vqgan(tmp_path, kind):
    reference = VQGANReference(Taming, kind=kind, multipliers=(1, 1, 1, 2), attention=(3,))
    saved = checkpoint(hparams={"attn_types": ("full",), "depth": 1}, depth=1)
    saved["vae_params"], saved["vae_class_name"] = None, "VQGanVAE"
    weights = {key: tensor for key, tensor in saved["weights"].items() if not key.startswith("vae.")}
    weights |= {f"vae.model.{key}": tensor for key, tensor in reference.state.items()}
    weights["vae.model.loss.logvar"] = torch.zeros(())
    codes = len(reference.state["quantize.embed.weight" if kind == "gumbel" else "quantize.embedding.weight"])
    # As many logits as its codes; 256 pixels are 32 x 32 codes.
    for name in ("to_logits.1.weight", "to_logits.1.bias"):
        rows = weights[name][: TEXT_TOKENS + TEXT]
        weights[name] = torch.cat([rows, rows[:1].expand(codes, *rows.shape[1:])])
    weights["image_emb.weight"] = torch.zeros(codes, SIZE)
    weights["transformer.pos_emb"] = torch.zeros(1, TEXT + 1 + 32**2, 6)
    torch.save(saved | {"weights": weights}, tmp_path / "dalle.pt")
    report = convert(tmp_path / "dalle.pt", tmp_path / "out")
    assert report.models["dvae"] == "VQGAN" and "loss.logvar" in report.dropped
    vqgan = VQGAN.from_pretrained(tmp_path / "out", subfolder="dvae").eval()
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    indices = vqgan.encode(pixels)
    assert torch.equal(indices, reference.indices(pixels))
    assert (vqgan.decode(indices) - reference.pixels(indices)).abs().max() <= 1e-4
    transformer = DallePytorchTransformer.from_pretrained(tmp_path / "out", subfolder="transformer")
    assert transformer.config.codebook_id == codebook_id(vqgan)


REFUSED = {
    "no version": (lambda saved: saved.pop("version"), "a version that gave no number"),
    "an early version": (lambda saved: saved.update(version="1.4.2"), "version 1.4.2"),
    "sparse": (lambda saved: saved["hparams"].update(attn_types=("full", "sparse")), "attn_types sparse"),
    "another option": (lambda saved: saved["hparams"].update(moe=True), "made with moe"),
    "shift": (lambda saved: saved["hparams"].update(shift_tokens=False), "shift_tokens=False"),
    "heads": (lambda saved: saved["hparams"].update(heads=4), r"3 \* heads \* dim_head"),
    "text": (lambda saved: saved["hparams"].update(num_text_tokens=21), "11 remain, and its image tokenizer has 12"),
    "leftover": (lambda saved: saved["weights"].update({"clip.weight": torch.ones(1)}), "'clip.weight'"),
    "image tokenizer": (
        lambda saved: [saved["weights"].pop(key) for key in list(saved["weights"]) if key.startswith("vae.")],
        "no image tokenizer that is known",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_expressed_is_refused(tmp_path, kind):
    change, message = REFUSED[kind]
    saved = checkpoint()
    change(saved)
    torch.save(saved, tmp_path / "dalle.pt")
    with pytest.raises((UnsupportedVariantError, KeyMismatchError), match=message):
        convert(tmp_path / "dalle.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_tokenizers_and_too_large_ones_are_refused(tmp_path):
    torch.save(checkpoint(), tmp_path / "dalle.pt")
    one, two = json_tokenizer(tmp_path / "a.json"), json_tokenizer(tmp_path / "b.json")
    with pytest.raises(KeyMismatchError, match="are both tokenizers"):
        convert([tmp_path / "dalle.pt", one, two], tmp_path / "out")
    many = {f"w{number}": number for number in range(30)}
    Tokenizer(models.WordLevel(many, unk_token="w0")).save(str(one))
    data = json.loads(one.read_text()) | {"pre_tokenizer": None}
    one.write_text(json.dumps(data))
    with pytest.raises(KeyMismatchError, match="has 30 tokens, the transformer 20"):
        convert([tmp_path / "dalle.pt", one], tmp_path / "out")


def clip_merges(count=CLIP_MERGES):
    """A list of merges in the form of CLIP's: the first make words, the others join bytes that no test holds."""
    useful = ["l i", "li o", "lio n</w>", "r e", "re d</w>"]
    letters = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter > "~"]
    filler = (
        f"{one} {two}{end}" for one, two, end in itertools.product(sorted(letters), sorted(letters), ("", "</w>"))
    )
    lines = useful + list(itertools.islice(filler, count - len(useful)))
    return "\n".join([f'"{CLIP_HEADER}: 0.2', *lines, ""])


def test_clips_tokenizer_is_rebuilt_from_its_merges():
    tokenizer = clip_tokenizer(clip_merges())
    assert tokenizer.get_vocab_size() == 49408
    encoded = tokenizer.encode("A  Red LION!", add_special_tokens=False)
    assert encoded.tokens == ["a</w>", "red</w>", "lion</w>", "!</w>"]
    assert encoded.ids[3] == 256 and tokenizer.decode(encoded.ids).split() == ["a", "red", "lion", "!"]
    with pytest.raises(ForeignFileError, match="incomplete"):
        clip_tokenizer(clip_merges(count=100))


@pytest.mark.peer
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rotary_emb": False, "shift_tokens": False},
        {"reversible": True},
        {"stable": True, "sandwich_norm": True, "share_input_output_emb": True},
    ],
)
@torch.no_grad()
def test_the_project_itself_gives_the_same_logits_and_pictures(tmp_path, options):
    dalle_pytorch = pytest.importorskip("dalle_pytorch", reason="needs the package dalle-pytorch")
    torch.manual_seed(0)
    vae = dalle_pytorch.DiscreteVAE(hidden_dim=6, **VAE)
    settings = {"num_text_tokens": TEXT_TOKENS, "text_seq_len": TEXT, "dim": 32, "depth": 4, "heads": HEADS}
    settings |= {"dim_head": 24, "attn_types": KINDS} | options
    theirs = dalle_pytorch.DALLE(vae=vae, **settings).eval()
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(checkpoint(hparams=settings, weights={}) | {"weights": theirs.state_dict()}, tmp_path / "dalle.pt")
    convert(tmp_path / "dalle.pt", tmp_path / "out")
    model = DallePytorchTransformer.from_pretrained(tmp_path / "out", subfolder="transformer").eval()
    expected = theirs(TEXTS.clone(), IMAGES)
    boundary = TEXT_TOKENS + TEXT
    logits = our_logits(model, TEXTS, IMAGES[:, :-1])
    difference = max(
        (logits[:, :TEXT, :boundary] - expected[:, :TEXT, :boundary]).abs().max(),
        (logits[:, TEXT:, boundary:] - expected[:, TEXT:, boundary:]).abs().max(),
    )
    assert difference <= 1e-4, difference
    loss = theirs(TEXTS.clone(), IMAGES, return_loss=True)
    torch.testing.assert_close(model(TEXTS, IMAGES.view(3, GRID, GRID)).loss, loss, rtol=1e-4, atol=1e-5)


@pytest.mark.peer
def test_the_projects_tokenizer_gives_the_same_tokens(tmp_path):
    tokenizer = pytest.importorskip("dalle_pytorch.tokenizer", reason="needs the package dalle-pytorch")
    with open(tokenizer.default_bpe(), encoding="utf8") as file:
        ours = clip_tokenizer(file.read())
    texts = [
        "a red lion!",
        "Two  stars, it's 3 o'clock & we're   done",
        "naïve café über 日本語 🙂",
        "x" * 40,
        "!!",
        "a-b_c 42",
    ]
    for text in texts:
        assert ours.encode(text, add_special_tokens=False).ids == tokenizer.tokenizer.encode(text), text
