"""What every card has: a header, an introduction, and the sections in their order."""

from collections.abc import Iterable
from typing import Any

from huggingface_hub import ModelCard, ModelCardData


def lay_out(
    header: ModelCardData,
    *,
    title: str,
    introduction: str,
    use: str,
    data: str,
    training: str,
    evaluation: str,
    limits: str,
    citation: str,
) -> ModelCard:
    """Puts a card together of its header and the text of each section."""
    sections = {
        "Use": use,
        "Data": data,
        "Training": training,
        "Evaluation": evaluation,
        "Limits": limits,
        "Citation": citation,
    }
    body = "\n\n".join(f"## {heading}\n\n{text.strip()}" for heading, text in sections.items())
    yaml_block = header.to_yaml(line_break="\n")
    return ModelCard(f"---\n{yaml_block}\n---\n\n# {title}\n\n{introduction}\n\n{body}\n")


def num_parameters(models: Iterable[Any]) -> str:
    """How many parameters some models have together, as a sentence."""
    return f"{sum(parameter.numel() for model in models for parameter in model.parameters()):,} parameters."
