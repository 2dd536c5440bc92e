"""The licence field of a model card, as the hub reads it."""

UNKNOWN = "unknown"

# Identifiers that the hub knows. Any other licence is `other` with a name.
_KNOWN = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0
epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl
mpl-2.0 odc-by odbl openrail openmdw-1.0 osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl unknown
"""


def licence_fields(licence: str) -> dict[str, str]:
    """A licence as fields of the YAML header: Apache-2.0 -> license: apache-2.0."""
    if licence.lower() in _KNOWN.split():
        return {"license": licence.lower()}
    return {"license": "other", "license_name": "-".join(licence.lower().split())}
