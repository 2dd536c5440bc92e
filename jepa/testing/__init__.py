"""`check_modality` checks that a modality, such as a plug-in, fulfils the contract, and explains every failure.

from jepa.testing import check_modality
check_modality(Audio(AudioConfig(source="folder", root=small_folder)))
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jepa.config.imports import describe_error
from jepa.modality import CONTRACT, Modality
from jepa.model_config import NetworksConfig
from jepa.testing.masks import check_masks
from jepa.testing.networks import check_networks, small_networks
from jepa.testing.samples import check_labels, check_samples, check_splits
from jepa.testing.structure import check_class, check_config, check_construction, check_pickling, check_tokens
from jepa.testing.training import check_training
from jepa.testing.views import check_baselines, check_evaluation_views, check_loader_views, check_picture, check_views

__all__ = ["ContractError", "check_modality"]
Check = Callable[[Modality[Any]], Iterator[str]]


class ContractError(AssertionError):
    """A modality breaks the contract; `failures` holds one sentence per failure."""

    def __init__(self, name: str, failures: Sequence[str]) -> None:
        self.failures = tuple(failures)
        lines = "\n".join(f"- {failure}" for failure in failures)
        places = "1 place" if len(failures) == 1 else f"{len(failures)} places"
        super().__init__(f"{name} breaks the contract of a modality (version {CONTRACT}) in {places}:\n{lines}")


def check_modality(modality: Modality[Any], model: NetworksConfig | None = None) -> None:
    """Check shapes, positions, masks, determinism, pickling, labels, config, three steps of training, and resuming.

    modality: an instance with little data; of each split, the readable ones of the first eight samples are used. model:
    its `model` section, by default a small transformer; required if `model_type` is not ModelConfig. Takes a few
    seconds, uses a temporary folder, and restores the global generators. Raises ContractError with one sentence per
    failure; checks that depend on a failed part are skipped.
    """
    name = type(modality).__name__
    networks: Check = lambda one: check_networks(one, model or small_networks(one))  # noqa: E731
    construction: Check = lambda one: check_construction(one, model or small_networks(one))  # noqa: E731
    training: Check = lambda one: check_training(one, model or small_networks(one))  # noqa: E731
    levels: list[dict[str, Check]] = [
        {"class": check_class},
        {"config": check_config, "tokens": check_tokens},
        {"pickling": check_pickling, "samples": check_samples, "masks": check_masks},
        {"splits": check_splits, "views": check_views, "labels": check_labels},
        {
            "loader views": check_loader_views,
            "evaluation views": check_evaluation_views,
            "baselines": check_baselines,
            "picture": check_picture,
        },
        {"construction": construction},
        {"networks": networks},
        {"training": training},
    ]
    for checks in levels:
        failures = [failure for part, check in checks.items() for failure in _failures(part, check, modality)]
        if failures:
            raise ContractError(name, failures)


def _failures(part: str, check: Check, modality: Modality[Any]) -> list[str]:
    try:
        return [f"{part}: {failure}" for failure in check(modality)]
    except Exception as error:  # a plug-in may raise anything; it is one failure of several
        return [f"{part}: {describe_error(error)}"]
