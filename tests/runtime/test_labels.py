"""Which requests of a share are captured, and how a request is labelled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from interv.codegen.bundle import Bundle
from interv.errors import IntervError
from interv.runtime.captures.labels import labelled
from interv.runtime.choice import Choice, choice_in
from tests.runtime.documents import carried

TEXT = """interv 1
sink rows = memory()
program half { capture at post_block[0] to rows sample 0.5 }
program all { capture at post_block[0] to rows }
program few { capture at post_block[0] to rows sample 0.01 }
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return carried(tmp_path_factory.mktemp("sampled"), TEXT).bundle


def drawn(bundle: Bundle, program: str, seed: int = 0) -> list[int]:
    choice = Choice.of(((program, 1.0),))
    labels = [labelled(choice, bundle, f"r{i}", None, seed) for i in range(4000)]
    return [i for i, one in enumerate(labels) if one.captures]


def test_a_share_is_drawn_by_the_seed_and_the_request(bundle: Bundle) -> None:
    half, few = drawn(bundle, "half"), drawn(bundle, "few")
    # Five standard deviations of a fair draw: 5 * sqrt(4000 * 0.5 * 0.5), and of 1 in 100.
    assert abs(len(half) - 2000) < 160
    assert abs(len(few) - 40) < 32
    assert half == drawn(bundle, "half")
    assert half != drawn(bundle, "half", seed=1)
    assert drawn(bundle, "all") == list(range(4000))


def test_a_label_travels_with_the_choice(bundle: Bundle) -> None:
    choice = labelled(Choice.of((("all", 1.0),)), bundle, "mine", "night", 0)
    assert choice.captures == 0b10
    assert choice.label is not None
    assert (choice.label.request, choice.label.tag) == ("mine", "night")

    params = SimpleNamespace(extra_args={"_interv": choice.plain()})
    assert choice_in(params, Choice()) == choice


def test_what_captures_nothing_has_no_label(bundle: Bundle) -> None:
    assert labelled(Choice(), bundle, "mine", None, 0) == Choice()
    gone = Choice.of((("all", 0.0),))
    assert labelled(gone, bundle, "mine", None, 0).label is None


@pytest.mark.parametrize(
    ("tag", "shown"), [(3, "3"), (["a"], "['a']"), ("x" * 129, "'" + "x" * 59)]
)
def test_a_tag_is_a_short_text(bundle: Bundle, tag: object, shown: str) -> None:
    with pytest.raises(IntervError) as caught:
        labelled(Choice.of((("all", 1.0),)), bundle, "mine", tag, 0)
    assert str(caught.value) == (
        f"error[E560]: 'intervention_tag' is a text of at most 128 characters, not {shown}"
    )
