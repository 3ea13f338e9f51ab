"""A corpus in the layout of docs/data.md, small enough to train on in seconds; ours to share."""

from __future__ import annotations

import json
import random
from pathlib import Path

PEOPLE = ("Sani Bello", "Amina Yusuf", "Juma Otieno", "Neema Mushi")
PLACES = ("Kano", "Abuja", "Mombasa", "Dodoma")
FRAMES = {
    "hau": (
        "{person} ya isa {place} ranar Litinin .",
        "An gina makaranta a {place} , in ji {person} .",
    ),
    "swa": ("{person} alifika {place} Jumatatu .", "Shule imejengwa {place} , alisema {person} ."),
}
TOPICS = {
    "business": ("kasuwa da kudi a banki", "soko na fedha katika benki"),
    "health": ("likita a asibiti da magani", "daktari wa hospitali na dawa"),
    "sports": ("kwallo da wasa a filin", "mpira na mchezo uwanjani"),
}


def write_corpus(root: Path, *, sentences: int = 40, seed: int = 1) -> Path:
    """Two languages, hau and swa: tagged sentences, articles and plain text."""
    chance = random.Random(seed)
    for place, (language, frames) in enumerate(FRAMES.items()):
        for split, count in (("train", sentences), ("dev", 6), ("test", 12)):
            tagged = [_tagged(chance.choice(frames), chance) for _ in range(count)]
            _write(root / "ner" / language / f"{split}.txt", "\n\n".join(tagged) + "\n")
            articles = [_article(place, chance) for _ in range(count)]
            _write(root / "news" / language / f"{split}.jsonl", "\n".join(articles) + "\n")
        plain = [_plain(chance.choice(frames), chance) for _ in range(10 * sentences)]
        _write(root / "text" / f"{language}.txt", "\n".join(plain) + "\n")
    return root


def _tagged(frame: str, chance: random.Random) -> str:
    lines = []
    for word in frame.split():
        if word == "{person}":
            first, last = chance.choice(PEOPLE).split()
            lines += [f"{first} B-PER", f"{last} I-PER"]
        elif word == "{place}":
            lines.append(f"{chance.choice(PLACES)} B-LOC")
        else:
            lines.append(f"{word} {'B-DATE' if word in ('Litinin', 'Jumatatu') else 'O'}")
    return "\n".join(lines)


def _article(place: int, chance: random.Random) -> str:
    label = chance.choice(sorted(TOPICS))
    words = TOPICS[label][place].split()
    text = " ".join(chance.choice(words) for _ in range(20))
    row = {"headline": TOPICS[label][place], "text": text, "label": label}
    return json.dumps(row, ensure_ascii=False)


def _plain(frame: str, chance: random.Random) -> str:
    return frame.format(person=chance.choice(PEOPLE), place=chance.choice(PLACES))


def _write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
