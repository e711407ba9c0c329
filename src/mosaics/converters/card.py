"""The README.md of converted weights."""

from mosaics.converters.formats import Conversion, ForeignFormat

CARD = """---
license: {license}
library_name: mosaics
tags:
- mosaics
- converted
---

# {name}, converted

{description}

Converted with Mosaics {version} from {files}. Every tensor was read back and compared with the source, bit by bit.
`conversion.json` has the digests of the source files{dropped}.

```python
{use}
```

## License

{weights_license} The weights come from <{project}>; converting them does not change their license.
"""


def card_text(form: ForeignFormat, conversion: Conversion, provenance: dict) -> str:
    """The card of a conversion."""
    first = conversion.parts[0]
    arguments = f'".", subfolder="{first.subfolder}"' if first.subfolder else '"."'
    name = type(first.model).__name__
    use = conversion.use or f"from mosaics import {name}\n\nmodel = {name}.from_pretrained({arguments})"
    return CARD.format(
        license=form.license,
        name=form.name,
        description=form.description,
        version=provenance["mosaics_version"],
        files=" and ".join(f"`{source['file']}`" for source in provenance["sources"]),
        dropped=" and what was left out" if provenance["dropped"] else "",
        use=use,
        weights_license=form.weights_license,
        project=form.project,
    )
