"""
What the manifests say, for people: docs/models.md, a picture and a model card for each task.

The pages are Jinja templates in `pages/`; figures come from evidence alone, and examples of errors
from asking the baseline the project's own annotated texts. Knows no corpora.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from build.chart import draw
from build.errors import BuildError
from build.golden import GoldenText, golden_texts
from build.mistakes import Kind, Mistake, mistakes
from models import catalog
from models.spec import Answer, Input, Interval, Task, Variant

PAGES = Path(__file__).parent / "pages"
PAGE = "models.md"
# Of each kind of mistake; of each language no more than one.
EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Errors:
    """
    What the baseline answered wrong of the project's texts.

    kinds  kind -> how often
    shown  some of each kind, of several languages
    """

    texts: int
    wrong: int
    kinds: dict[Kind, int]
    shown: dict[Kind, list[Mistake]]


def report(root: Path, out: Path) -> list[Path]:
    """
    Write the pages and pictures of a catalog's judged variants into `out`; give back the files.

    Raises BuildError where no variant is judged, BrokenVariant.
    """
    groups = by_task([catalog.read(file.parent) for file in root.glob(f"*/{catalog.MANIFEST}")])
    if not groups:
        raise BuildError(f"no variant in {root} has scores: python -m build evaluate NAME")
    out.mkdir(parents=True, exist_ok=True)
    written = [_write(out / PAGE, overview(groups))]
    for task, variants in groups.items():
        draw(variants, out / picture(task))
        baseline = variants[0]
        texts = golden_texts(baseline)
        answers = catalog.open_variant(root / baseline.name).answer([each.text for each in texts])
        written.append(out / picture(task))
        written.append(_write(out / card_name(task), card(variants, errors(texts, answers))))
    return written


def picture(task: Task) -> str:
    return f"models-{task}.svg"


def card_name(task: Task) -> str:
    return f"model-card-{task}.md"


def by_task(variants: Sequence[Variant]) -> dict[Task, list[Variant]]:
    """The judged ones: a baseline first, then from the largest to the smallest."""
    judged = [each for each in variants if each.evidence and each.evidence.quality]
    ordered = sorted(judged, key=lambda each: (each.parent is not None, -each.bytes, each.name))
    return {
        task: mine for task in Task if (mine := [each for each in ordered if each.task is task])
    }


def errors(texts: Sequence[GoldenText], answers: Sequence[Answer]) -> Errors:
    found = [mistakes(text.gold, answer) for text, answer in zip(texts, answers, strict=True)]
    kinds = Counter(each.kind for some in found for each in some)
    shown: dict[Kind, list[Mistake]] = {kind: [] for kind in Kind if kinds[kind]}
    for some in found:
        for each in some:
            mine = shown[each.kind]
            if len(mine) < EXAMPLES and each.language not in {other.language for other in mine}:
                mine.append(each)
    wrong = sum(bool(some) for some in found)
    return Errors(len(texts), wrong, {kind: kinds[kind] for kind in shown}, shown)


# --- pages ------------------------------------------------------------------------------------


def overview(groups: dict[Task, list[Variant]]) -> str:
    return render(PAGE, groups=groups)


def card(variants: Sequence[Variant], errors: Errors) -> str:
    """The model card (Mitchell et al. 2019) of one task; the baseline comes first."""
    return render(card_name(variants[0].task), variants=variants, errors=errors)


def shared(variant: Variant, baseline: Variant) -> tuple[str, ...]:
    """The steps that a variant begins with as its baseline does."""
    pairs = zip(variant.lineage, baseline.lineage, strict=False)
    return tuple(mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def render(page: str, /, **values: object) -> str:
    """A page of `pages/`, filled in."""
    pages = Environment(
        loader=FileSystemLoader(PAGES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    pages.filters |= {"span": _span, "hundredths": _hundredths, "signed": _signed}
    pages.globals |= {"Input": Input, "Task": Task, "picture": picture, "card_name": card_name}
    pages.globals |= {"shared": shared}
    return pages.get_template(page).render(**values)


def _write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def _span(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _hundredths(interval: Interval) -> str:
    return f"{100 * interval.mean:.0f} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"
