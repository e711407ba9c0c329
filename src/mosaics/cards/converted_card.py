"""The card of weights that another project trained and Mosaics converted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from mosaics.cards.families import FAMILIES, family_of
from mosaics.cards.layout import lay_out, num_parameters
from mosaics.cards.sections import citation_section, data_section, evaluation_section, limits_section, use_section


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights come from that were not trained with Mosaics.

    Args:
        name: Short name of what was converted, such as `"openai-dvae"`.
        description: One sentence: whose weights, and which model of Mosaics they have become.
        project: Address of the project.
        license: Licence of the weights as the Hub calls it.
        license_note: A sentence about that licence.
        files: Names of the files.
        mosaics_version: Version of Mosaics that converted them.
        left_out: Whether the files held something that the result does not.
    """

    name: str
    description: str
    project: str
    license: str
    license_note: str
    files: tuple[str, ...]
    mosaics_version: str
    left_out: bool = False


def converted_card(
    models: Sequence[Any], origin: WeightsOrigin, *, use: str = "", is_pipeline: bool = False
) -> ModelCard:
    """Writes the card of a folder of converted weights: what is known of them, and "not stated" for the rest.

    Args:
        models: The models in the folder; their weights are not read.
        origin: Where they come from.
        use: A program that loads them from the folder `.`; that of the first model's kind if there is none.
        is_pipeline: Whether the folder as a whole is a [`~mosaics.DallePipeline`].
    """
    families = [family_of(model) for model in models]
    whole = FAMILIES["DallePipeline"] if is_pipeline else families[0]
    header = ModelCardData(
        license=origin.license,
        library_name=whole.library_name,
        pipeline_tag=whole.pipeline_tag,
        tags=list(dict.fromkeys(["mosaics", "converted", *(tag for family in families for tag in family.tags)])),
        model_name=origin.name,
    )
    summaries = [family.summary(model) for family, model in zip(families, models, strict=True)]
    limits = [sentence for family, model in zip(families, models, strict=True) for sentence in family.limits(model)]
    files = " and ".join(f"`{name}`" for name in origin.files)
    return lay_out(
        header,
        title=f"{origin.name}, converted",
        introduction=(
            f"{origin.description} {' '.join(summaries)} {num_parameters(models)} Licence of the weights: "
            f"{origin.license}. {origin.license_note} The weights come from <{origin.project}>; converting them does "
            "not change their licence."
        ),
        use=use_section(use or whole.use(models[0], ".")),
        data=data_section({}, ()),
        training=(
            f"Trained with the code of <{origin.project}>; how is not stated.\n\nConverted with Mosaics "
            f"{origin.mosaics_version} from {files}. Every tensor was read back and compared with the source, bit by "
            "bit. `conversion.json` has the digests of the source files"
            f"{' and what was left out' if origin.left_out else ''}."
        ),
        evaluation=evaluation_section(()),
        limits=limits_section(limits),
        citation=citation_section(entry for family in families for entry in family.citations),
    )
