"""The README.md of converted weights."""

from collections.abc import Mapping
from typing import Any

from mosaics.cards import WeightsOrigin, converted_card
from mosaics.converters.formats import Conversion, ForeignFormat


def card_text(form: ForeignFormat, conversion: Conversion, provenance: Mapping[str, Any]) -> str:
    """The card of a conversion, of which `conversion.json` holds `provenance`."""
    origin = WeightsOrigin(
        name=form.name,
        description=form.description,
        project=form.project,
        license=form.license,
        license_note=form.weights_license,
        files=tuple(source["file"] for source in provenance["sources"]),
        mosaics_version=provenance["mosaics_version"],
        left_out=bool(provenance["dropped"]),
    )
    models = [part.model for part in conversion.parts]
    return str(converted_card(models, origin, use=conversion.use, is_pipeline=conversion.is_pipeline))
