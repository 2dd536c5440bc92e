"""How to load shared networks in three libraries, as Markdown."""

from collections.abc import Sequence

from jepa.share.facts import Facts


def loading(facts: Facts, source: str, included: Sequence[str]) -> str:
    """Code for jepa, transformers and timm; where a library cannot load them, a sentence says so."""
    modality = str(facts.config["modality"])
    trust = ", trust=True" if ":" in modality else ""
    needs = f"It needs the package that holds `{modality}`.\n\n" if trust else ""
    return (
        f"With openjepa (`pip install openjepa`):\n\n{needs}```python\nimport jepa\n"
        f"from torch.utils.data import default_collate\n\n"
        f'encoder = jepa.load("{source}"{trust})\n'
        f'modality = jepa.load_modality("{source}"{trust})\n'
        "tokens = encoder(default_collate([modality.evaluation_view(inputs)]))  # [1, N, D]\n```"
    )
