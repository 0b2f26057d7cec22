"""Files of pairs: what is read, and what is said of those that are wrong, to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from interv.errors import IntervError
from interv.extract import Pair, pairs_digest, read_pairs, read_sides

TEXTS = st.text(min_size=1).filter(str.strip)


def write(folder: Path, text: str, name: str = "p.jsonl") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(IntervError) as caught:
        read_pairs(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_pairs_are_read_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path, '{"positive": "a", "negative": "b"}\r\n\n{"negative":"d","positive":"c"}'
    )
    assert read_pairs(path) == (Pair("a", "b", None, 1), Pair("c", "d", None, 3))


def test_answers_have_their_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "How?", "positive": "a", "negative": "b"}')
    assert read_pairs(path) == (Pair("a", "b", "How?", 1),)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS).filter(lambda p: p[0] != p[1]), min_size=1, max_size=5))
def test_what_is_written_is_read(pairs: list[tuple[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"positive": a, "negative": b}) for a, b in pairs]
        read = read_pairs(write(Path(folder), "\n".join(lines) + "\n"))
        raw = [json.dumps({"positive": a, "negative": b}, ensure_ascii=False) for a, b in pairs]
        assert read_pairs(write(Path(folder), "\n".join(raw))) == read
    assert [(pair.positive, pair.negative) for pair in read] == pairs


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '{"positive": "c", "negative": }',
            "error[E281]: line 2 is not JSON\n"
            " --> p.jsonl:2:31\n"
            "  |\n"
            '2 | {"positive": "c", "negative": }\n'
            "  |                               ^ Expecting value",
        ),
        (
            '["c", "d"]',
            "error[E281]: line 2 is no pair\n"
            " --> p.jsonl:2:1\n"
            "  |\n"
            '2 | ["c", "d"]\n'
            "  | ^^^^^^^^^^\n"
            "  |\n"
            '  = write {"positive": "I am glad.", "negative": "I am sad."}',
        ),
        (
            '{"positive": "c"}',
            "error[E281]: line 2 has no 'negative'\n"
            " --> p.jsonl:2:1\n"
            "  |\n"
            '2 | {"positive": "c"}\n'
            "  | ^^^^^^^^^^^^^^^^^",
        ),
        (
            '{"positive": 1, "negative": " "}',
            "error[E281]: line 2: 'positive' is not a text\n"
            " --> p.jsonl:2:1\n"
            "  |\n"
            '2 | {"positive": 1, "negative": " "}\n'
            "  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
            "\n"
            "error[E281]: line 2: 'negative' is empty\n"
            " --> p.jsonl:2:1\n"
            "  |\n"
            '2 | {"positive": 1, "negative": " "}\n'
            "  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            '{"positive": "c", "negative": "d", "promt": "e"}',
            "error[E281]: line 2: 'promt' is not a field\n"
            " --> p.jsonl:2:1\n"
            "  |\n"
            '2 | {"positive": "c", "negative": "d", "promt": "e"}\n'
            "  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
            "  |\n"
            "  = fields: positive, negative, prompt\n"
            "  = did you mean 'prompt'?",
        ),
        (
            '{"positive": "c", "negative": "c"}',
            "error[E281]: line 2: both texts are the same\n"
            " --> p.jsonl:2:1\n"
            "  |\n"
            '2 | {"positive": "c", "negative": "c"}\n'
            "  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            '{"positive": "c", "negative": "d", "prompt": "e"}',
            "error[E281]: line 1 has no 'prompt', other lines have one\n"
            " --> p.jsonl:1:1\n"
            "  |\n"
            '1 | {"positive": "a", "negative": "b"}\n'
            "  | ^\n"
            "  |\n"
            "  = give all lines a prompt, or none",
        ),
    ],
)
def test_a_wrong_line_is_shown(tmp_path: Path, line: str, expected: str) -> None:
    path = write(tmp_path, f'{{"positive": "a", "negative": "b"}}\n{line}\n')
    assert refusal(path) == expected


def test_all_wrong_lines_are_shown_up_to_a_number(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "{}\n[]\n")).count("error[E281]") == 3
    many = refusal(write(tmp_path, "[]\n" * 100))
    assert many.count("error[E281]") == 9
    assert many.endswith("\n\nerror[E281]: 92 more lines are wrong")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    assert refusal(write(tmp_path, text)) == "error[E280]: 'p.jsonl' holds no texts"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "x", "joy.jsonl")
    assert refusal(tmp_path / "joi.jsonl") == (
        "error[E280]: 'joi.jsonl' cannot be read: No such file or directory\n"
        "  = did you mean 'joy.jsonl'?"
    )
    (tmp_path / "b.jsonl").write_bytes(b'{"positive": "\xff"}')
    assert refusal(tmp_path / "b.jsonl") == "error[E280]: 'b.jsonl' is not UTF-8: byte 14"
    assert refusal(tmp_path) == f"error[E280]: '{tmp_path}' cannot be read: Is a directory".replace(
        f"{tmp_path.parent}/", ""
    )


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "[" * 100_000)).startswith("error[E281]: line 1 is n")


def test_two_files_are_paired_line_by_line(tmp_path: Path) -> None:
    positive = write(tmp_path, "a\nb\n\n", "p.txt")
    negative = write(tmp_path, "c\r\nd", "n.txt")
    assert read_sides(positive, negative) == (Pair("a", "c", None, 1), Pair("b", "d", None, 2))


def sides_refusal(folder: Path, positive: str, negative: str) -> str:
    paths = write(folder, positive, "p.txt"), write(folder, negative, "n.txt")
    with pytest.raises(IntervError) as caught:
        read_sides(*paths)
    return str(caught.value).replace(f"{folder}/", "")


def test_two_files_that_do_not_go_together(tmp_path: Path) -> None:
    assert sides_refusal(tmp_path, "a\nb", "c") == (
        "error[E282]: the two files have different numbers of lines: "
        "2 in 'p.txt' and 1 in 'n.txt'\n"
        "  = line i of the first belongs to line i of the second"
    )
    assert sides_refusal(tmp_path, "a", "\n\n") == "error[E280]: 'n.txt' holds no texts"
    assert sides_refusal(tmp_path, "a\n\nb", "c\nd\ne") == (
        "error[E281]: line 2 is empty\n --> p.txt:2:1\n  |\n2 | \n  | ^"
    )


def test_the_digest_is_of_the_texts_in_their_order(tmp_path: Path) -> None:
    one = read_pairs(write(tmp_path, '{"positive": "a", "negative": "b"}'))
    other = read_sides(write(tmp_path, "a\n", "p.txt"), write(tmp_path, "b\n", "n.txt"))
    assert pairs_digest(one) == pairs_digest(other)
    changed = [(Pair("b", "a"),), (Pair("a", "b", ""),), (Pair("a", "b"), Pair("a", "b"))]
    assert len({pairs_digest(pairs) for pairs in [one, *changed]}) == 4


def test_an_array_of_pairs(tmp_path: Path) -> None:
    text = '[{"positive": "a", "negative": "b"},\n  {"positive": "c", "negative": "d"}, ["e", "f"]]'
    assert read_pairs(write(tmp_path, text, "p.json")) == (
        Pair("a", "b", None, 1, "pair"),
        Pair("c", "d", None, 2, "pair"),
        Pair("e", "f", None, 3, "pair"),
    )
    lines = write(tmp_path, '{"positive": "a", "negative": "b"}\n')
    assert read_pairs(write(tmp_path, json.dumps([{"positive": "a", "negative": "b"}]))) == (
        Pair("a", "b", None, 1, "pair"),
    )
    assert pairs_digest(read_pairs(lines)) == pairs_digest((Pair("a", "b"),))


@pytest.mark.parametrize(
    ("pair", "read"),
    [
        (
            {
                "question": "Well?",
                "answer_matching_behavior": " (A)",
                "answer_not_matching_behavior": " (B)",
            },
            (" (A)", " (B)", "Well?"),
        ),
        (
            {
                "question": "Well?",
                "statement": "I am well",
                "label_confidence": 0.9,
                "answer_matching_behavior": " Yes",
                "answer_not_matching_behavior": " No",
            },
            (" Yes", " No", "Well?"),
        ),
        (
            {
                "positive_str": "a",
                "negative_str": "b",
                "read_positive_token_index": None,
                "read_negative_token_index": None,
            },
            ("a", "b", None),
        ),
    ],
)
def test_the_fields_of_other_tools(
    tmp_path: Path, pair: dict[str, object], read: tuple[str, str, str | None]
) -> None:
    other = {name: "c" if value == read[0] else value for name, value in pair.items()}
    lines = write(tmp_path, f"{json.dumps(pair)}\n{json.dumps(other)}\n")
    assert read_pairs(lines) == (Pair(*read, 1), Pair("c", *read[1:], 2))
    array = write(tmp_path, json.dumps([pair, other], indent=1))
    assert read_pairs(array) == (Pair(*read, 1, "pair"), Pair("c", *read[1:], 2, "pair"))


def test_two_lists_as_easysteer_has_them(tmp_path: Path) -> None:
    config = {
        "config_name": "mood",
        "method": "diffmean",
        "token_pos": "-1",
        "positive_samples": ["a", "b"],
        "negative_samples": ["c", "d"],
    }
    assert read_pairs(write(tmp_path, json.dumps(config, indent=2))) == (
        Pair("a", "c", None, 1, "pair"),
        Pair("b", "d", None, 2, "pair"),
    )
    assert refusal(write(tmp_path, json.dumps({**config, "negative_samples": ["c"]}))) == (
        "error[E282]: the two lists have different lengths: 2 in 'positive_samples' and 1 in "
        "'negative_samples'\n  = text i of the first belongs to text i of the second"
    )


def test_wrong_pairs_of_an_array_are_shown(tmp_path: Path) -> None:
    text = '[\n {"positive": "a", "negative": "b"},\n {"chosen": "c", "rejected": "d"}\n]'
    first = (
        "error[E281]: pair 2: 'chosen' is not a field\n"
        " --> p.jsonl:3:2\n"
        "  |\n"
        '3 |  {"chosen": "c", "rejected": "d"}\n'
        "  |  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "  |\n"
        "  = fields: positive, negative, prompt\n"
        "  = or those of CAA: answer_matching_behavior, answer_not_matching_behavior, question\n"
        "  = or those of steering-vectors: positive_str, negative_str\n"
        "  = or those of EasySteer: positive_samples, negative_samples\n\n"
    )
    found = refusal(write(tmp_path, text))
    assert found.startswith(first)
    assert found.count("error[E281]: pair 2") == 4
    assert refusal(write(tmp_path, '[{"positive": "a" "negative": "b"}]')) == (
        "error[E281]: 'p.jsonl' is not JSON\n"
        " --> p.jsonl:1:19\n"
        "  |\n"
        '1 | [{"positive": "a" "negative": "b"}]\n'
        "  |                   ^ Expecting ',' delimiter"
    )
    mixed = (
        '[{"positive": "a", "negative": "b"}, {"positive": "c", "negative": "d", "prompt": "e"}]'
    )
    assert refusal(write(tmp_path, mixed)).startswith(
        "error[E281]: pair 1 has no 'prompt', other pairs have one\n"
    )
