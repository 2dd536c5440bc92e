"""JepaFeatures in pipelines of scikit-learn, by scikit-learn's own checks and on every form of input."""

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from small_runs import save_untrained, small
from tiny import Rows, noise

import jepa
from jepa.checkpoint import Checkpoint, latest
from jepa.config import plain
from jepa.launch import resolve
from jepa.modality import Modality
from jepa.model import JEPA

EXACT = ("compute.precision=fp32",)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A run on images of 16 x 16."""
    return save_untrained(tmp_path_factory.mktemp("run"), photos)


@pytest.fixture(scope="module")
def rows_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on rows of numbers."""
    config, _ = small("modality=tiny:Rows", "model.size={width: 24, depth: 1, heads: 2}", "data.grid=[4,6]")
    return save_run(config, Rows(config.data), tmp_path_factory.mktemp("rows"))


def save_run(config: Any, modality: Modality[Any], folder: Path) -> Path:
    """A run directory with a checkpoint of initial weights."""
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(3, 1.5, plain(config), model.state_dict(), {}).save(latest(folder))
    return folder


def test_scikit_learn_accepts_it(rows_run: Path) -> None:
    from sklearn.utils.estimator_checks import check_estimator

    from jepa.sklearn import JepaFeatures

    results = check_estimator(JepaFeatures(rows_run, overrides=EXACT, trust=True), on_skip=None)
    passed = [one["check_name"] for one in results if one["status"] == "passed"]
    assert {one["status"] for one in results} <= {"passed", "skipped"}
    assert len(passed) >= 40
    assert {"check_estimators_pickle", "check_methods_subset_invariance", "check_n_features_in"} <= set(passed)


def test_every_form_of_a_picture_has_the_features_that_the_encoder_gives(run: Path, photos: Path) -> None:
    from jepa.sklearn import JepaFeatures

    paths = sorted(photos.glob("*.png"))
    rows = np.stack([np.asarray(PillowImage.open(path)) for path in paths])  # [24, 24, 24, 3]
    modality = jepa.load_modality(run)
    views = torch.stack([modality.evaluation_view(torch.from_numpy(one).permute(2, 0, 1)) for one in rows])
    expected = jepa.load(run)(views).mean(dim=1).detach().numpy()
    column = np.array([[str(path)] for path in paths], dtype=object)
    forms = [rows, rows.transpose(0, 3, 1, 2), torch.from_numpy(rows), rows / 255, list(rows), paths, column]
    for given in [*forms, list(map(str, paths)), [PillowImage.open(path) for path in paths]]:
        features = JepaFeatures(run, batch_size=5, overrides=EXACT).transform(given)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(
        JepaFeatures(run, overrides=EXACT, value_range=(-1, 1)).transform(rows / 127.5 - 1), expected, atol=1e-5
    )


def test_it_works_in_pipelines_and_is_pickled_without_the_encoder(run: Path, photos: Path) -> None:
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from jepa.sklearn import JepaFeatures

    paths = sorted(photos.glob("*.png"))
    labels = np.arange(len(paths)) % 2
    classifier = make_pipeline(JepaFeatures(run, "last4", overrides=EXACT), LogisticRegression(C=1e6, max_iter=5000))
    scores = classifier.fit(paths, labels).predict_proba(paths)
    assert classifier.score(paths, labels) == 1.0  # 48 features of 24 samples
    assert classifier[:-1].get_feature_names_out().tolist() == [f"jepafeatures{number}" for number in range(48)]
    stored = pickle.dumps(classifier)
    assert len(stored) < 10_000
    np.testing.assert_allclose(pickle.loads(stored).predict_proba(paths), scores, rtol=1e-6)
    features = classifier[0].set_params(pooling="tokens")  # loads the encoder anew
    assert features.transform(paths[:2]).shape == (2, 16 * 24)
    assert clone(features).get_params() == features.get_params()


def test_clips_and_samples_of_plug_ins_are_arrays_too(rows_run: Path, tmp_path: Path) -> None:
    from jepa.sklearn import JepaFeatures

    size = "model.size={width: 24, depth: 1, heads: 2}"
    shape = ("data.image_size=16", "data.patch_size=8", "data.frames=4", "data.masking=[{kind: random}]")
    config, modality = resolve("video", {}, (size, *shape, "data.source=folder", f"data.root={tmp_path}"))
    save_run(config, modality, tmp_path / "video")
    clips = np.random.default_rng(0).integers(256, size=(3, 6, 20, 24, 3), dtype=np.uint8)
    for number, clip in enumerate(clips):
        np.save(tmp_path / f"{number}.npy", clip)
    features = JepaFeatures(tmp_path / "video", overrides=EXACT)
    expected = features.transform(clips)
    assert expected.shape == (3, 24)
    np.testing.assert_allclose(features.transform(sorted(tmp_path.glob("*.npy"))), expected, atol=1e-6)

    config, noise_modality = small("modality=tiny:Noise", size, "data.grid=[4,6]")
    save_run(config, noise_modality, tmp_path / "noise")
    samples = noise(3).numpy().astype(np.float64)  # [3, 2, 8, 12]
    given = JepaFeatures(tmp_path / "noise", overrides=EXACT, trust=True).transform(samples)
    expected = jepa.load(tmp_path / "noise", trust=True)(noise(3)).mean(dim=1).detach().numpy()
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_what_it_cannot_take_is_refused_with_a_reason(run: Path, photos: Path, tmp_path: Path) -> None:
    from jepa.sklearn import JepaFeatures

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>404</html>")
    for given, words in (
        ([photos / "00.png", broken], "broken.png: not an image of a known format"),
        (np.full((2, 8, 8, 3), 255.0), "set value_range"),
        (np.zeros((2, 192)), "is no picture"),
        (photos / "00.png", "give a list"),
        ([], "X is empty"),
        (np.zeros((0, 8, 8, 3)), "X is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            JepaFeatures(run).transform(given)


def test_without_scikit_learn_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("jepa.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'openjepa\[sklearn\]'"):
        importlib.import_module("jepa.sklearn")
