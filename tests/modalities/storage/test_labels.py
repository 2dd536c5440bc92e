"""Labels of all sources: which are classes, in which order, and what they are called."""

import pytest

from modalities.storage.labels import UNLABELLED, classes_of, read_label


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1", "0", "1"], ("0", "1")),
        (
            ["30000", "7", "4000000000", "-5", "12345678901234567890123"],
            ("-5", "7", "30000", "4000000000", "1" + "2345678901234567890123"),
        ),
        (["10", "9", "-1", ""], ("9", "10")),
        (["dog", "cat", "10", "9", "Cat"], ("9", "10", "Cat", "cat", "dog")),
        (["02084071", "00000007"], ("00000007", "02084071")),
        (["7", "07", "7.0", "8.0"], ("7", "8")),
        (["caf\u00e9", "cafe\u0301", " caf\u00e9\n"], ("caf\u00e9",)),
        (["-1", ""], ()),
        (["9" * 5000], ("9" * 5000,)),
    ],
)
def test_classes_are_the_labels_that_occur_numbers_first_then_names_sorted(
    labels: list[str], names: tuple[str, ...]
) -> None:
    classes = classes_of(labels)
    assert classes.names == names
    found = [classes.number(label) for label in labels]
    assert set(found) - {UNLABELLED} == set(range(len(names)))
    assert [number == UNLABELLED for number in found] == [label in ("-1", "") for label in labels]
    assert [classes.number(name) for name in names] == list(range(len(names)))


def test_a_label_that_the_training_set_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="label 'bird' is not in the training set"):
        classes_of(["cat", "dog"]).number("bird")


def test_labels_minus_one_and_one_are_refused_because_minus_one_means_unlabelled() -> None:
    with pytest.raises(ValueError, match=r"-1 means unlabelled; write the two classes as 0 and 1"):
        classes_of(["1", "-1", "1"])


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (7.0, "7"), (" cat ", "cat"), (None, ""), (float("nan"), "")])
def test_whole_numbers_and_names_are_labels(value: object, text: str) -> None:
    assert read_label(value) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "true or false"),
        (2.5, r"2\.5; it must be a whole number or a name"),
        ("2.5", r"2\.5; it must be a whole number or a name"),
        (float("inf"), "inf"),
        ([1], "a list"),
        ({}, "an object"),
        ("a\nb", "not one line"),
        ("a\ud800", "not one line"),
        ("x" * 201, "201 characters; 200 are allowed"),
    ],
)
def test_other_values_are_not_labels(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_label(value)
