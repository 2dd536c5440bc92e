"""The `streams` section of results.json in words."""

from collections.abc import Mapping
from typing import Any

from jepa.evaluate.table import rank_limit


def stream_lines(streams: Mapping[str, Any]) -> list[str]:
    """Lines on how far apart two streams lie, and how much one helps to predict the other; none without streams."""
    lines = []
    if "gap" in streams:
        ranks = ", ".join(
            f"{name} {ranks['jepa']:.1f} (untrained {ranks['random_init']:.1f})"
            for name, ranks in streams["rankme"].items()
        )
        lines.append(
            f"{' and '.join(streams['names'])}: mean score of matching pairs {streams['matched']['jepa']:.2f}, "
            f"of other pairs {streams['mismatched']['jepa']:.2f}; gap {streams['gap']['own']['jepa']:.2f}; "
            f"RankMe {ranks}{rank_limit(streams)}"
        )
    return [*lines, gain_sentence(streams)] if "gain" in streams else lines


def gain_sentence(streams: Mapping[str, Any]) -> str:
    """How much the second stream changes the prediction error of the first."""
    first, second = streams["names"]
    section = streams["gain"]
    base = section["error"]["without"]

    def changes(difference: Mapping[str, Any]) -> str:
        if difference["mean"] is None or not base:
            return "changes it by an unknown share"
        share, error = difference["mean"] / base, difference["standard_error"]
        spread = "" if error is None else f" (± {100 * error / base:.1f})"
        return f"{'raises' if share < 0 else 'lowers'} it by {abs(100 * share):.1f} %{spread}"

    own, other = (changes(section[f"without_minus_{name}"]) for name in ("own", "other"))
    return (
        f"Prediction error of hidden {first} tokens: the {second} of the same sample {own}, the {second} of another "
        f"sample {other}; {section['without_minus_own']['samples']} samples, standard errors in brackets."
    )
