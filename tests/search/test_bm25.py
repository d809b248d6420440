"""BM25 scores worked out by hand on three documents; words in many scripts."""

import math

import pytest

from trichrome.search.bm25 import BM25, words

DOCUMENTS = ["the fox saw the dog", "a dog slept", "whales sing"]


def weight(frequency: int, holders: int, length: int) -> float:
    """One term's score, by definition: N = 3, lengths 5, 3, 2, so 10/3 on average."""
    idf = math.log(1 + (3 - holders + 0.5) / (holders + 0.5))
    return idf * frequency / (frequency + 0.9 * (1 - 0.4 + 0.4 * length / (10 / 3)))


def test_scores_by_hand() -> None:
    index = BM25([words(d) for d in DOCUMENTS])
    found, scores = index.search(words("the dog"), 10)
    assert found.tolist() == [0, 1]  # the third shares no word and is not found
    assert scores == pytest.approx([weight(2, 1, 5) + weight(1, 2, 5), weight(1, 2, 3)], rel=1e-5)
    found, scores = index.search(words("dog dog"), 1)  # a word asked for twice counts twice
    assert (found.tolist(), scores.tolist()) == ([1], pytest.approx([2 * weight(1, 2, 3)], rel=1e-5))


def test_token_ids_and_words_are_tokens_alike() -> None:
    index = BM25([[250001, 7], [7, 7], [3]])
    assert index.search([7], 10)[0].tolist() == [1, 0]
    assert index.search([999, 3], 10)[0].tolist() == [2]


def test_nothing_shared_nothing_found() -> None:
    for documents, query in ((["a b"], ["c"]), (["a b"], []), (["", ""], ["a"])):
        found, scores = BM25([d.split() for d in documents]).search(query, 5)
        assert (len(found), len(scores)) == (0, 0)


def test_equal_scores_come_in_document_order() -> None:
    assert BM25([["a"], ["b"], ["a"], ["a"]]).search(["a"], 2)[0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Héllo, WORLD-42!", ["héllo", "world", "42"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs stay in the word
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("水", ["水"]),
        ("GPT4の使い方", ["gpt4", "の使", "使い", "い方"]),
        ("한국어 문서", ["한국", "국어", "문서"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("ሰላም ነው", ["ሰላ", "ላም", "ነው"]),
        ("ខ្មែរ", ["ខ្", "្ម", "មែ", "ែរ"]),
        ("ａｂｃ", ["abc"]),
        (" … ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
