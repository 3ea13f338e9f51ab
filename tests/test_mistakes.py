from __future__ import annotations

from build.data import Article, Sentence, Span
from build.mistakes import Kind, Mistake, mistakes
from models.spec import ClassificationAnswer, Entity, LabelScore, NerAnswer

TEXT = "Aisha ta je Kano da Zariya ranar Litinin."
GOLD = Sentence(
    TEXT,
    (Span("PER", 0, 5), Span("LOC", 12, 16), Span("LOC", 20, 26), Span("DATE", 27, 40)),
    "hau",
)


def answer(*entities: tuple[str, str]) -> NerAnswer:
    found = []
    for label, words in entities:
        start = TEXT.index(words)
        end = start + len(words)
        found.append(Entity(label=label, start=start, end=end, text=words, score=0.9))
    return NerAnswer(entities=tuple(found), tokens=9, windows=1, unknown=0.0)


def kinds(*entities: tuple[str, str]) -> list[tuple[Kind, str, str]]:
    return [(each.kind, each.wanted, each.said) for each in mistakes(GOLD, answer(*entities))]


ALL = (("PER", "Aisha"), ("LOC", "Kano"), ("LOC", "Zariya"), ("DATE", "ranar Litinin"))


def test_a_right_answer_has_none() -> None:
    assert kinds(*ALL) == []


def test_each_kind_is_named() -> None:
    assert kinds(*ALL[1:]) == [(Kind.MISSED, "PER Aisha", "")]
    assert kinds(*ALL, ("ORG", "ta je")) == [(Kind.INVENTED, "", "ORG ta je")]
    assert kinds(*ALL[:3], ("DATE", "Litinin")) == [
        (Kind.EXTENT, "DATE ranar Litinin", "DATE Litinin")
    ]
    assert kinds(("LOC", "Aisha"), *ALL[1:]) == [(Kind.LABEL, "PER Aisha", "LOC Aisha")]


def test_an_entity_over_two_is_one_wrong_extent_and_one_missed() -> None:
    found = kinds(ALL[0], ("LOC", "Kano da Zariya"), ALL[3])
    assert found == [
        (Kind.EXTENT, "LOC Kano", "LOC Kano da Zariya"),
        (Kind.MISSED, "LOC Zariya", ""),
    ]


def test_pieces_of_one_entity_are_one_mistake() -> None:
    found = kinds(*ALL[:3], ("DATE", "ranar"), ("LOC", "Litinin"))
    assert [(kind, wanted) for kind, wanted, _ in found] == [(Kind.LABEL, "DATE ranar Litinin")]


def test_a_topic_is_right_or_wrong() -> None:
    article = Article("Super Eagles sun ci.", "sports", "hau")
    said = ClassificationAnswer(
        labels=(LabelScore(label="health", score=0.8), LabelScore(label="sports", score=0.2)),
        tokens=6,
        windows=1,
        unknown=0.0,
    )
    assert mistakes(article, said) == [
        Mistake(Kind.TOPIC, "hau", "Super Eagles sun ci.", "sports", "health")
    ]
    right = Article(article.text, "health", "hau")
    assert mistakes(right, said) == []
