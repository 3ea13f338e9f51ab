"""
The report as one HTML page that needs nothing else: no scripts, no requests, and a policy that
forbids both. Light and dark as its reader likes it. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from html import escape

from loadtest.findings import Findings
from loadtest.report.plots import Plot, climbs, plots
from loadtest.report.svg import COLOURS
from loadtest.report.tables import Cell, Table, tables
from loadtest.report.verdict import Verdict, shortened, verdict

TASKS = {"ner": "Entities", "classification": "Topics"}

# Told apart by people who see colours differently (Okabe and Ito 2008), darker or lighter so that
# thin text in them can be read.
LIGHT = ("#0b62a8", "#b64a00", "#00795a", "#9c3f7b", "#7a5c00", "#3b5a75", "#5b4bb0")
DARK = ("#6cb8f2", "#ff9a5c", "#4fd1a5", "#f09acb", "#e2c044", "#a7c0d6", "#b3a7ff")


def _theme(colours: Sequence[str], **names: str) -> str:
    inks = "".join(f"--c{i}:{each};" for i, each in enumerate(colours))
    return inks + "".join(f"--{name}:{value};" for name, value in names.items())


STYLE = f"""
:root{{color-scheme:light dark;{
    _theme(
        LIGHT,
        ground="#fbfbfa",
        card="#ffffff",
        ink="#1b1d20",
        quiet="#63686f",
        line="#e4e4e1",
        band="#00000012",
        good="#00795a",
        bad="#b3261e",
        doubt="#8a6100",
    )
}}}
@media(prefers-color-scheme:dark){{:root{{{
    _theme(
        DARK,
        ground="#121416",
        card="#1a1d20",
        ink="#e9eaec",
        quiet="#9da3ab",
        line="#2f3439",
        band="#ffffff17",
        good="#4fd1a5",
        bad="#ff8a80",
        doubt="#e2c044",
    )
}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:70rem;padding:1.5rem 1rem 4rem;background:var(--ground);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
h1{{font-size:1.05rem;font-weight:600;margin:0 0 1.2rem;color:var(--quiet)}}
h2{{font-size:1.35rem;margin:2.8rem 0 .8rem;letter-spacing:-.01em}}
h3{{font-size:1rem;margin:1.5rem 0 .5rem}}figure h3{{margin-top:0}}
p{{margin:.4rem 0}}
code{{font:.92em ui-monospace,"SF Mono",Menlo,Consolas,monospace;background:var(--band);
padding:.08em .3em;border-radius:.25em;white-space:nowrap}}
.verdict{{background:var(--card);border:1px solid var(--line);border-left:.35rem solid var(--good);
border-radius:.5rem;padding:1.1rem 1.3rem}}
.verdict.bad{{border-left-color:var(--bad)}}.verdict.doubt{{border-left-color:var(--doubt)}}
.verdict>p:first-child{{font-size:1.3rem;line-height:1.4;font-weight:600;margin:0 0 .6rem;
letter-spacing:-.01em}}
.verdict ul{{margin:.3rem 0;padding-left:1.2rem}}.verdict li{{margin:.2rem 0}}
.wrong{{color:var(--bad)}}.quiet{{color:var(--quiet)}}
.note{{color:var(--quiet);font-size:.875rem;max-width:62rem}}
.wide{{overflow-x:auto;margin:.3rem 0}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap;
font-size:.94rem}}
th,td{{padding:.38rem .9rem .38rem 0;border-bottom:1px solid var(--line);text-align:right;
vertical-align:baseline}}
th{{font-weight:500;color:var(--quiet);font-size:.84rem}}
th:first-child,td:first-child{{text-align:left;position:sticky;left:0;background:var(--ground)}}
td:first-child{{font-weight:600}}
td small{{display:block;color:var(--quiet);font-size:.78rem;line-height:1.25}}
.plots{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1rem;
margin:1.4rem 0}}
.climbs{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:1rem}}
figure{{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;
padding:1rem 1rem .8rem}}
figcaption{{color:var(--quiet);font-size:.84rem;line-height:1.45;margin-top:.4rem}}
svg{{display:block;width:100%;height:auto;min-width:29rem}}.climbs svg{{min-width:20rem}}
svg text{{fill:var(--ink);font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}}
svg text.ink{{stroke-width:3px;paint-order:stroke;stroke-linejoin:round}}
svg text.quiet{{fill:var(--quiet)}}svg text.strong{{font-weight:600}}
.grid{{stroke:var(--line);fill:none}}.axis,.tick{{stroke:var(--quiet);fill:none;opacity:.7}}
.line{{fill:none;stroke-width:2;stroke-linejoin:round}}.line.thin{{stroke-width:1.4;opacity:.8}}
.line.front{{stroke:var(--quiet);stroke-width:1.3;stroke-dasharray:1 4;stroke-linecap:round}}
.limit{{stroke:var(--bad);stroke-width:1.2;stroke-dasharray:5 4;fill:none;opacity:.8}}
.bar{{stroke-width:3;fill:none;stroke-linecap:round;opacity:.55}}.bar.thin{{stroke-width:1.4}}
.point{{stroke:var(--card);stroke-width:1.2}}.point.open{{fill:var(--card)!important}}
.noise{{fill:var(--band)}}.whisker{{stroke:var(--ink);stroke-width:1.2}}
.mute{{stroke:var(--quiet)}}circle.mute{{fill:var(--quiet);stroke:var(--card)}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.2rem;font-size:.9rem}}
dt{{color:var(--quiet)}}dd{{margin:0;overflow-wrap:anywhere}}
""" + "".join(
    f".c{i}{{stroke:var(--c{i})}}circle.c{i},rect.c{i}{{fill:var(--c{i});stroke:none}}"
    f"svg text.c{i}.ink{{fill:var(--c{i});stroke:var(--card)}}"
    f"circle.c{i}.open{{stroke:var(--c{i})}}"
    for i in range(COLOURS)
)


def html(reports: Sequence[Findings], settings: Mapping[str, object], price: float) -> str:
    """All tasks, one after another, and how it was measured."""
    # A policy of its own: no scripts, no requests, only this style.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'"
    body = "".join(_task(found, price, alone=len(reports) == 1) for found in reports)
    listed = "".join(f"<dt>{_e(k)}</dt><dd>{_e(v)}</dd>" for k, v in settings.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Kadogo: variants compared</title><style>{STYLE}</style></head>\n"
        f"<body><h1>Kadogo · variants compared</h1>\n{body}"
        f"<h2>How it was measured</h2><dl>{listed}</dl></body></html>\n"
    )


def _task(found: Findings, price: float, *, alone: bool) -> str:
    said = verdict(found)
    heading = "" if alone else f"<h2>{_e(TASKS.get(found.task, found.task))}</h2>"
    climbing = climbs(found)
    climbed = (
        f"<h2>Under a load that climbs</h2>{_note(CLIMB)}"
        f'<div class="climbs">{"".join(_figure(each) for each in climbing)}</div>'
        if climbing
        else ""
    )
    return (
        f"<section>{heading}{_verdict(found, said)}"
        f'<div class="plots">{"".join(_figure(each) for each in plots(found, price))}</div>'
        f"<h2>Figures</h2>{''.join(_table(each) for each in tables(found, price))}"
        f"{climbed}</section>\n"
    )


CLIMB = (
    "The load climbs from a fifth of each variant's own peak to above it. Above, what its client "
    "waits: never answered is what was refused or failed. Below, from the server's metrics, how "
    "many windows of text wait in its queue and how many it puts into a batch. All at one scale; "
    "none of it is part of the figures, for writing metrics so often disturbs."
)


def _verdict(found: Findings, said: Verdict) -> str:
    doubtful = said.doubts or said.unjudged
    css = "bad" if said.wrong or not said.proved else "doubt" if doubtful else ""
    lists = (
        ("Not kept:", shortened(said.wrong), "wrong"),
        ("The load was in the way:", said.spoilt, "wrong"),
        ("Not proved:", said.unjudged, ""),
        ("", said.reasons, ""),
        ("", said.undecided, "quiet"),
        ("To be doubted:", said.doubts, ""),
    )
    parts = [f"<p>{_words(said.headline)}</p>"]
    parts += [_list(name, lines, style) for name, lines, style in lists if lines]
    if found.kept and found.proves and not (found.broken or found.unjudged):
        parts.append(f'<p class="quiet">Kept: {_words("; ".join(found.kept))}.</p>')
    return f'<div class="verdict {css}">{"".join(parts)}</div>'


def _list(name: str, lines: Sequence[str], css: str) -> str:
    style = f' class="{css}"' if css else ""
    head = f"<p{style}>{_e(name)}</p>" if name else ""
    return f"{head}<ul{style}>{''.join(f'<li>{_words(line)}</li>' for line in lines)}</ul>"


def _figure(plot: Plot) -> str:
    heading = f"<h3>{_e(plot.name)}</h3>" if plot.note else ""
    caption = f"<figcaption>{_e(plot.note)}</figcaption>" if plot.note else ""
    # Where a screen is narrow a picture is scrolled, for its text would be too small to read.
    return f'<figure>{heading}<div class="wide">{plot.svg}</div>{caption}</figure>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{_e(name)}</th>" for name in table.head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return (
        f'<h3>{_e(table.name)}</h3><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_note(table.note)}"
    )


def _cell(cell: Cell) -> str:
    quiet = f"<small>{_e(cell.quiet)}</small>" if cell.quiet else ""
    return f"<td>{_e(cell.text)}{quiet}</td>"


def _note(said: str) -> str:
    return f'<p class="note">{_e(said)}</p>' if said else ""


def _words(said: str) -> str:
    kept_together = _e(said).replace(" %", "\u00a0%")
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", kept_together)


def _e(value: object) -> str:
    return escape(str(value))
