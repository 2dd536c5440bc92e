"""Names of modalities: found in this process or among installed packages, and refused with the names there are."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from tiny import Noise

from jepa import registry
from jepa.registry import MODALITIES, Registry, UnknownModalityError


def declare(monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Pretend that installed packages declare these modalities."""
    entries = [EntryPoint(name=name, value=module, group=registry.GROUP) for name, module in modules.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)


def test_a_registered_class_is_found_by_name() -> None:
    modalities = Registry()
    assert modalities.register("noise")(Noise) is Noise
    assert modalities.get("noise") is Noise


def test_an_installed_modality_is_imported_when_it_is_asked_for() -> None:
    assert MODALITIES.get("image").__name__ == "Image"


def test_an_unknown_name_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, audio="modalities.audio", image="modalities.image")
    modalities = Registry()
    modalities.register("noise")(Noise)
    with pytest.raises(UnknownModalityError, match=r"no modality 'sonar'; installed: audio, image, noise\. A package"):
        modalities.get("sonar")
    declare(monkeypatch)
    with pytest.raises(UnknownModalityError, match=r"installed: none \(run: pip install -e \.\)"):
        Registry().get("sonar")


def test_two_classes_of_one_name_are_refused_but_the_same_may_be_loaded_again() -> None:
    class Other(Noise):
        pass

    modalities = Registry()
    modalities.register("noise")(Noise)
    modalities.register("noise")(type("Noise", (Noise,), {"__module__": Noise.__module__, "__qualname__": "Noise"}))
    with pytest.raises(ValueError, match=r"two modalities are called 'noise': tiny\.Noise and .*Other"):
        modalities.register("noise")(Other)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("json", r"entry point 'sonar = json' registers no modality of that name; decorate its class with @MODAL"),
        ("no_such_module", r"modality 'sonar' \(no_such_module\) cannot be imported: No module named 'no_such_module'"),
    ],
)
def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch, module: str, sentence: str) -> None:
    declare(monkeypatch, sonar=module)
    modalities: Any = Registry()
    with pytest.raises(UnknownModalityError, match=sentence):
        modalities.get("sonar")
