"""Two matching streams: retrieval, zero-shot classes, geometry, cross-modal gain, and their part of the report."""

import dataclasses
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pages import Page
from pairs import CELLS, FIRST, SECOND, Pairs, PairsConfig, PairsNetworks, PairView, hidden_cells
from torch import Generator, Tensor
from torch.utils.data import default_collate

from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError, plain
from jepa.distributed import join
from jepa.evaluate.cross_modal.gain import cross_modal_gain, other_samples, sample_distances
from jepa.evaluate.cross_modal.geometry import gap, geometry
from jepa.evaluate.cross_modal.retrieval import TOP_K, RetrievalSet, hit_probabilities, recalls
from jepa.evaluate.cross_modal.rows import class_embeddings, preference, zero_shot_row
from jepa.evaluate.cross_modal.samples import EncodedSamples, NearMisses
from jepa.evaluate.cross_modal.vectors import Similarity, StreamEncoder, Vectors, joint_embedding, scores
from jepa.evaluate.cross_modal.words import gain_sentence
from jepa.evaluate.features import Extractor, TokenBudget, grid_layers
from jepa.evaluate.run import evaluate_run
from jepa.launch import resolve
from jepa.loss import LossConfig, prediction_loss
from jepa.model import JEPA, Pair, Prediction
from jepa.report.galleries import mask_words
from jepa.report.page import write_report
from jepa.train import train
from jepa.training.config import ComputeConfig, Config
from jepa.training.run_dir import prepare_run_dir
from jepa.weights.load import configured, model_of, read_checkpoint
from jepa.weights.opened import load


def vectors(count: int, seed: int = 0) -> Vectors:
    generator = Generator().manual_seed(seed)
    return Vectors(*(torch.randn(count, 8, generator=generator) for _ in range(3)))


def pairs_of(first: Vectors, second: Vectors, owner: list[int]) -> RetrievalSet:
    return RetrievalSet(first, second, torch.tensor(owner), [str(number) for number in range(len(owner))])


OWNER = [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]  # twelve samples with one to three matches each


# Retrieval ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["direct", "predicted"])
def test_recall_equals_a_loop_over_queries(similarity: Any) -> None:
    first, second = vectors(12, 1), vectors(16, 2)
    table = scores(first, second, similarity)
    for index, k in enumerate(TOP_K):
        samples = [{OWNER[text] for text in row.topk(k).indices.tolist()} for row in table]
        back = [set(row.topk(k).indices.tolist()) for row in table.T]
        found = [query in hits for query, hits in enumerate(samples)]
        found_back = [owner in hits for owner, hits in zip(OWNER, back, strict=True)]
        for query_stream, expected in enumerate((found, found_back)):
            hits, _, queries = recalls(pairs_of(first, second, OWNER), similarity, query_stream, None)
            assert hits[0, index] == pytest.approx(sum(expected) / len(expected))
            assert queries == len(expected)


def test_perfect_vectors_get_recall_one_and_collapsed_ones_get_chance() -> None:
    first = vectors(12)
    perfect = pairs_of(first, first.rows(torch.tensor(OWNER)), OWNER)
    alike, broken = (Vectors(*(torch.full((16, 8), value),) * 3) for value in (1.0, math.nan))
    almost = Vectors(*(torch.ones(16, 8) + 1e-8 * torch.arange(16.0).unsqueeze(1) for _ in range(3)))
    for query_stream in (0, 1):
        assert recalls(perfect, "direct", query_stream, None)[0].min() == 1
        for collapsed in (alike, broken, almost):
            whole = pairs_of(collapsed.rows(torch.arange(12)), collapsed, OWNER)
            hits, chance, _ = recalls(whole, "direct", query_stream, None)
            assert torch.equal(hits, chance)
            assert chance.max() < 0.99
    counts = [OWNER.count(sample) for sample in range(12)]
    missed = [math.comb(16 - count, 5) / math.comb(16, 5) for count in counts]
    assert recalls(perfect, "direct", 0, None)[1][0, 1] == pytest.approx(1 - sum(missed) / 12)
    assert recalls(perfect, "direct", 1, None)[1][0].tolist() == pytest.approx([1 / 12, 5 / 12, 10 / 12])


def test_tied_scores_count_as_the_mean_over_their_orders() -> None:
    table = torch.tensor([3.0, 2.0, 2.0, 2.0, 2.0, 1.0])
    for right in itertools.product([False, True], repeat=6):
        if not any(right):
            continue
        orders = [order for order in itertools.permutations(range(6)) if table[list(order)].diff().max() <= 0]
        for best in (1, 2, 3, 5, 9):
            expected = sum(any(right[place] for place in order[:best]) for order in orders) / len(orders)
            found = hit_probabilities(table.unsqueeze(0), torch.tensor([right]), (best,))
            assert found.item() == pytest.approx(expected)


def test_equal_second_streams_are_one_candidate_that_matches_each_of_their_samples() -> None:
    """Samples 0 and 1 have equal second streams: either is correct for the other."""
    first = vectors(3)
    second = Vectors(*(torch.stack([one[0], one[0], one[2]]) for one in first))
    same = RetrievalSet(first, second, torch.arange(3), ["alike", "alike", "other"])
    assert recalls(same, "direct", 0, None)[1][0, 0] == pytest.approx(0.5)  # one correct of two distinct
    hits, chance, queries = recalls(same, "direct", 1, None)
    assert hits[0, 0] == 1
    assert chance[0, 0] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert queries == 3


def test_galleries_are_consecutive_and_drop_samples_left_over() -> None:
    whole = pairs_of(vectors(12, 1), vectors(16, 2), OWNER)
    parts = list(whole.galleries(5))
    assert [part.descriptions for part in parts] == [[str(n) for n in range(9)], [str(n) for n in range(9, 14)]]
    for number, part in enumerate(parts):
        assert torch.equal(part.first.encoded, whole.first.encoded[5 * number : 5 * number + 5])
        assert part.owner.unique().tolist() == [0, 1, 2, 3, 4]
    hits = recalls(whole, "direct", 0, 5)[0]
    assert hits.shape == (2, 3)
    for number, part in enumerate(parts):
        assert torch.equal(hits[number], recalls(part, "direct", 0, None)[0][0])
    assert len(list(whole.galleries(100))) == 1


# Zero-shot classes, near misses, geometry ----------------------------------------------------------------------------


def encoded_samples(first: Vectors) -> EncodedSamples:
    return EncodedSamples(pairs_of(first, first, list(range(len(first.encoded)))), {})


def test_zero_shot_picks_the_best_matching_name_and_never_a_class_without_one() -> None:
    names = F.normalize(torch.randn(4, 8), dim=-1)
    labels = torch.tensor([0.0, 1.0, 1.0, 3.0, math.nan, 2.0])
    own = torch.stack([names[0], names[1], names[0], names[3], names[0], names[2]])
    ones = torch.ones(6, 8)
    encoded = {
        "jepa": encoded_samples(Vectors(own, own, own)),
        "random_init": encoded_samples(Vectors(ones, ones, ones)),
    }
    classes = {"jepa": names, "random_init": F.normalize(torch.ones(4, 8), dim=-1)}
    row = zero_shot_row(encoded, classes, labels, torch.tensor([True] * 4), "direct")
    assert (row["jepa"], row["random_init"], row["chance"]) == (4 / 5, 1 / 4, 2 / 5)
    assert row["test_samples"] == 5
    nameless = zero_shot_row(encoded, classes, labels, torch.tensor([True, True, False, True]), "direct")
    assert nameless["jepa"] == 3 / 5


def test_prompts_are_averaged_as_unit_vectors() -> None:
    class Two(Pairs):
        def prompts(self, task: Any) -> Any:
            for number in range(2):
                yield [PairView(torch.zeros(CELLS, 6), torch.full((1, 6), number + 0.5 * extra)) for extra in range(3)]

    modality = Two(PairsConfig())
    encoder = StreamEncoder(JEPA(PairsNetworks(), modality).eval(), modality)
    similarities: tuple[Similarity, Similarity] = ("direct", "predicted")
    for similarity in similarities:
        found, named = class_embeddings(encoder, modality, modality.tasks[0], similarity)
        for number, prompts in enumerate(modality.prompts(None)):
            each = joint_embedding(encoder.encode(default_collate(prompts), 1), 1, similarity)
            torch.testing.assert_close(found[number], F.normalize(each.mean(dim=0), dim=-1))
        assert named.tolist() == [True, True]


def test_preference_for_the_match_over_the_near_miss_counts_ties_half() -> None:
    first = vectors(4)
    owner = torch.tensor([0, 1, 3])
    opposite = Vectors(*(-one for one in first.rows(owner)))
    assert preference(first, NearMisses(owner, first.rows(owner), opposite), "direct") == 1
    assert preference(first, NearMisses(owner, opposite, first.rows(owner)), "direct") == 0
    assert preference(first, NearMisses(owner, opposite, opposite), "direct") == 0.5


def test_gap_and_mean_scores_equal_their_definitions() -> None:
    first, second = vectors(5, 1), vectors(5, 2)
    means = [F.normalize(one.encoded, dim=-1).mean(dim=0) for one in (first, second)]
    assert gap(first.encoded, second.encoded) == pytest.approx(float((means[0] - means[1]).square().sum().sqrt()))
    assert gap(first.encoded, 3 * first.encoded) < 1e-6
    encoded = {"jepa": EncodedSamples(pairs_of(first, second, [0, 1, 2, 3, 4]), {})}
    section = geometry(encoded, Pairs(PairsConfig()), "predicted")
    table = scores(first, second, "predicted")
    assert section["matched"]["jepa"] == pytest.approx(float(table.diagonal().mean()), abs=1e-6)
    assert section["mismatched"]["jepa"] == pytest.approx(float((table.sum() - table.trace()) / 20), abs=1e-6)


# Gain -----------------------------------------------------------------------------------------------------------------


def test_the_other_sample_is_the_next_with_another_description() -> None:
    assert other_samples(["a", "a", "b", "c"]).tolist() == [2, 2, 3, 0]
    assert other_samples(["a", "a"]).tolist() == [-1, -1]


@pytest.mark.parametrize("distance", ["smooth_l1", "l1", "l2"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_is_the_mean_of_sample_distances(distance: Any, normalise: bool) -> None:
    config = LossConfig(distance=distance, normalise_prediction=normalise)
    pair = Pair(torch.randn(4, 2, 3, 1, 8), torch.randn(4, 2, 3, 1, 8))
    whole = prediction_loss([Prediction({"latent": pair}, {})], config, {"latent": 1.0})
    torch.testing.assert_close(sample_distances(pair, config).mean(), whole)
    valid = torch.tensor([True, False, True]).expand(4, 2, -1)
    part = Pair(pair.predicted[:, :, ::2], pair.target[:, :, ::2])
    absent = sample_distances(pair._replace(valid=valid), config)
    torch.testing.assert_close(absent, sample_distances(part, config))


def settings(run_dir: Path, *more: str) -> tuple[Config[Any, Any], Any]:
    shape = ("model.predictor={width: 16, depth: 2, heads: 2}", "loss.distance=l2", "optim.batch_size=32")
    plain = ("compute.workers=0", "compute.precision=fp32", "compute.device=cpu", "evaluate.low_shot_draws=1")
    return resolve("pairs:Pairs", {}, (f"run_dir={run_dir}", "steps=30", "log_every=1", *shape, *plain, *more))


@pytest.mark.parametrize("tied", [True, False])
def test_the_gain_is_positive_if_and_only_if_the_streams_are_related(tied: bool, tmp_path: Path) -> None:
    learning = (
        f"steps={350 if tied else 150}",
        "data.samples=400",
        "optim.peak_lr=0.01",
        "log_every=300",
        f"data.tied={str(tied).lower()}",
    )
    config, modality = settings(tmp_path / "run", *learning)
    train(config, modality, join("cpu"))
    model = model_of(read_checkpoint(config.run_dir), config, modality)
    section = cross_modal_gain(model, modality, config, modality.dataset("test"), range(200), lambda _: None)
    own, other = section["without_minus_own"], section["without_minus_other"]
    assert own["samples"] == other["samples"] == 200
    assert own["mean"] == pytest.approx(section["error"]["without"] - section["error"]["own"])
    if tied:
        assert own["mean"] > 0.2 * section["error"]["without"]
        assert own["mean"] > 10 * own["standard_error"]
        assert other["mean"] < 0  # the second stream of another sample misleads
    else:
        assert abs(own["mean"] - other["mean"]) < 4 * math.hypot(own["standard_error"], other["standard_error"])
        assert abs(own["mean"]) < 0.1 * section["error"]["without"]


def test_the_gain_equals_a_loop_over_samples(tmp_path: Path) -> None:
    config, modality = settings(tmp_path / "run")
    model, samples = JEPA(config.model, modality).eval(), modality.dataset("test")
    section = cross_modal_gain(model, modality, config, samples, range(5), lambda _: None)
    masks_with, masks_without = hidden_cells(1)
    views = [default_collate([modality.evaluation_view(samples[index].inputs)]) for index in range(5)]
    expected: dict[str, list[Tensor]] = {"own": [], "without": [], "other": []}
    for index, view in enumerate(views):
        mixed = PairView(view.first, views[(index + 1) % 5].second)
        cases = (("own", view, masks_with), ("without", view, masks_without), ("other", mixed, masks_with))
        for name, inputs, masks in cases:
            prediction = model.predict(model.context_encoder(inputs, masks), masks)
            target = model.targets(view)[:, masks.target[0]]
            expected[name].append(F.mse_loss(prediction, target).detach())
    for name, errors in expected.items():
        assert section["error"][name] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)


def test_the_gain_is_unknown_if_no_sample_can_be_read(tmp_path: Path) -> None:
    config, modality = settings(tmp_path / "run", "data.bad=[0,1]")
    bad: list[tuple[str, str]] = []
    model, samples = JEPA(config.model, modality).eval(), modality.dataset("test")
    section = cross_modal_gain(model, modality, config, samples, range(2), bad.extend)
    assert [source for source, _ in bad] == ["test/0", "test/1"]
    assert set(section["error"].values()) == {None}
    assert section["without_minus_own"] == {"mean": None, "standard_error": None, "samples": 0}
    assert "by an unknown share" in gain_sentence({"names": ["cells", "told"], "gain": section})


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("loss.agreement=1", r"loss\.agreement: .* loss\.regulariser"),
        ("loss.invariance=1", r"loss\.invariance: .* loss\.regulariser"),
        ("loss.contrast_weight=2", r"loss\.contrast_weight: .* model\.contrast"),
        ("loss.prediction_weight=0", r"loss\.distance: .* loss\.prediction_weight is 0"),
        ("model.predictor.mask_tokens=2", r"model\.predictor\.mask_tokens: 2, but it must be 1"),
    ],
)
def test_settings_without_effect_are_refused(overrides: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        train(*settings(tmp_path / "run", *overrides.split()), join("cpu"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("contrast", ["none", "infonce"])
def test_networks_that_nothing_trains_are_refused(contrast: str, tmp_path: Path) -> None:
    config, modality = settings(tmp_path / "run", f"model.contrast={contrast}")
    loss = replace(config.loss, prediction_weight=0.0, contrast_weight=0.0)
    with pytest.raises(ConfigError, match=r"loss\.prediction_weight: at 0"):
        train(replace(config, loss=loss), modality, join("cpu"))


def test_accumulation_may_change_when_a_run_resumes_unless_it_has_a_contrast(tmp_path: Path) -> None:
    for contrast in ("none", "infonce"):
        for accumulate in (1, 2):
            more = (f"model.contrast={contrast}", f"optim.accumulate={accumulate}")
            config, _ = settings(tmp_path / contrast, *more)
            if (contrast, accumulate) == ("infonce", 2):
                with pytest.raises(ConfigError, match=r"another config: optim\.accumulate"):
                    prepare_run_dir(config)
            else:
                prepare_run_dir(config)


# A run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with one held-out sample that cannot be read."""
    config, modality = settings(tmp_path_factory.mktemp("runs") / "pairs", "data.bad=[3]", "evaluate.gallery=20")
    assert train(config, modality, join("cpu"))
    return config.run_dir


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    return evaluate_run(run)


def test_probes_use_the_first_stream_alone(run: Path) -> None:
    checkpoint = read_checkpoint(run)
    config, modality = configured(checkpoint)
    encoder = model_of(checkpoint, config, modality).target_encoder
    views = default_collate([modality.evaluation_view(modality.dataset("test")[index].inputs) for index in range(3)])
    (tokens,) = grid_layers(modality, encoder, views)
    assert tokens.shape == (3, 4, encoder.dim)
    torch.testing.assert_close(tokens, encoder(views)[:, :4])
    (other,) = grid_layers(modality, encoder, views._replace(second=torch.randn(3, 1, 6)))
    assert torch.equal(tokens, other)
    encoders = {"jepa": encoder, "random_init": encoder}
    compute = ComputeConfig(workers=0, precision="fp32")
    extractor = Extractor(modality, encoders, modality.tasks, 4, compute, lambda _: None)
    features = extractor.extract(modality.dataset("test"), range(3), TokenBudget(tokens=3, sequences=3))
    torch.testing.assert_close(features.last["jepa"], tokens.mean(dim=1))
    assert features.tokens["jepa"].shape == (3, 4, encoder.dim)


def test_results_hold_rows_of_both_directions_and_the_section_on_streams(
    run: Path, results: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = results["tasks"]
    probes = [f"sign/{probe}" for probe in ("linear", "knn", "low_shot_12", "low_shot_1pct")]
    retrieval = [f"retrieval/{way}@{k}" for way in ("cells_to_<word>", "<word>_to_cells") for k in TOP_K]
    assert list(rows) == [*probes, *retrieval, "sign/zero_shot", "near_miss/turned"]
    for name in (*retrieval, "sign/zero_shot", "near_miss/turned"):
        row = rows[name]
        assert row["higher_is_better"]
        assert all(0 <= row[column] <= 1 for column in ("jepa", "random_init", "chance"))
        assert (row["way"], row["train_samples"]) == ("predicted", 0)
    first = rows["retrieval/cells_to_<word>@1"]
    assert (first["metric"], first["gallery"], first["galleries"], first["test_samples"]) == ("recall", 20, 2, 40)
    assert set(first["spread"]) == {"jepa", "random_init"}
    assert rows["retrieval/<word>_to_cells@5"]["chance"] == pytest.approx(5 / 20)
    assert rows["sign/zero_shot"]["test_samples"] == 59
    assert rows["near_miss/turned"]["test_samples"] == 29  # every second of 60 has one, and one cannot be read
    streams = results["streams"]
    assert streams["names"] == ["cells", "<word>"]
    assert streams["samples"] == 59
    assert streams["gain"]["without_minus_own"]["samples"] == 59
    assert 0 <= streams["gap"]["own"]["jepa"] <= 2
    assert json.loads((run / "results.json").read_text()) == results
    assert any("unlabelled is not measured" in note for note in results["notes"])


def test_rows_are_selected_by_name_and_unknown_names_are_refused(run: Path) -> None:
    some = evaluate_run(run, tasks=["retrieval", "near_miss/turned"], layers=["evaluate.gallery=null"])
    assert [name.partition("/")[0] for name in some["tasks"]] == ["retrieval"] * 6 + ["near_miss"]
    assert some["tasks"]["retrieval/cells_to_<word>@1"]["gallery"] == 59
    assert "streams" not in some
    assert list(evaluate_run(run, tasks=["sign/knn"])["tasks"]) == ["sign/knn"]
    for wrong, offender in (
        ("near_miss/other", "near_miss/turned"),
        ("retrieval/cells", "retrieval/cells_to_<word>@5"),
    ):
        with pytest.raises(ConfigError, match=f"no task '{wrong}'.*{offender}"):
            evaluate_run(run, tasks=[wrong])


def test_loading_a_run_returns_the_inference_model_of_the_modality(run: Path) -> None:
    for which in ("target_encoder", "context_encoder"):
        served = load(run, which)[which]  # type: ignore[index, arg-type]
        assert isinstance(served, JEPA)
        assert not served.training


def test_a_gain_that_the_run_was_not_trained_for_is_not_measured_but_noted(run: Path) -> None:
    results = evaluate_run(run, layers=["data.learns=false", "data.samples=30"])
    assert "gain" not in results["streams"]
    assert any("not trained both with and without it" in note for note in results["notes"])


def test_a_run_with_a_contrast_is_measured_directly_and_by_prediction(tmp_path: Path) -> None:
    config, modality = settings(tmp_path / "run", "model.contrast=infonce", "steps=2", "data.samples=40")
    train(config, modality, join("cpu"))
    rows = evaluate_run(config.run_dir, tasks=["retrieval"])["tasks"]
    ways = {name: row["way"] for name, row in rows.items()}
    assert list(ways.values()) == ["direct"] * 6 + ["predicted"] * 2
    assert [name for name, way in ways.items() if way == "predicted"] == [
        "retrieval/cells_to_<word>@1_predicted",
        "retrieval/<word>_to_cells@1_predicted",
    ]


def test_untrained_networks_have_the_initial_weights_of_the_run(tmp_path: Path) -> None:
    config, modality = settings(tmp_path / "run", "data.samples=40")
    torch.manual_seed(config.seed)
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(1, 1.0, plain(config), model.state_dict(), {}).save(latest(config.run_dir))
    tasks = evaluate_run(config.run_dir)["tasks"]
    assert all(row["jepa"] == row["random_init"] for row in tasks.values())


def test_the_report_shows_retrieval_gain_and_masks(run: Path, results: dict[str, Any]) -> None:
    path = write_report(run)
    page, html = Page(path), path.read_text()
    for unescaped in ("<b>", "<word>"):
        assert html.count(unescaped) == 0
    assert "<b>validation " in page.text
    for words in (
        "What it retrieves",
        "Does the <word> help to predict the cells?",
        "context: all 2 tokens of <word>; targets: 1 of 5 tokens of cells",
        "retrieval, cells to <word>, top 1",
        "Each input has 5 tokens of cells (2 x 2 of them on a grid) and 2 of <word>.",
        " to predict the representation of hidden tokens from visible ones.",
    ):
        assert words in page.text, words
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    found = [image for image in images if (image["alt"] or "").startswith("found by query")]
    assert len(found) == 6 * 5
    assert len(images) == 6 * (1 + 2 * 4) + 6 * 3 + 6 * (1 + 5 + 5) + len(found)
    assert {"matches", "masks", "rankme"} <= {figure.stem for figure in (run / "figures").glob("*.png")}
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"rankme", "<word>_rankme"} <= logged.keys()
    is_repeated = write_report(run).read_text() == html
    assert is_repeated


def test_mask_words_count_the_tokens_of_each_stream() -> None:
    with_it, without_it = hidden_cells(2)
    words = mask_words((FIRST, SECOND), with_it)
    assert words == "context: 2 of 5 tokens of cells and all 2 tokens of <word>; targets: 3 of 5 tokens of cells"
    assert "<word>" not in mask_words((FIRST, SECOND), dataclasses.replace(without_it))
    assert mask_words((), with_it) == ""
