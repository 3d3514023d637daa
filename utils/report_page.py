"""The metric card as one HTML file: nothing is fetched, pictures are inside, no script; for phones, light and dark."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Any

GROUP_FIGURES = ("mIoU", "oIoU", "P@0.5", "PointM", "Hit")
STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #69727d; --line: #dde1e6; --paper: #fff; --bar: #3b6fd4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaee; --soft: #98a2ad; --line: #333a43; --paper: #15191e; --bar: #7aa5f5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, .soft { color: var(--soft); font-size: .875rem; margin: .2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } thead th { color: var(--soft); font-size: .8rem; } th:first-child { text-align: left; }
td small { color: var(--soft); display: block; }
.scale { position: relative; min-width: 6rem; width: 24rem; max-width: 35vw; height: .7rem; border-radius: .35rem;
  background: var(--line); }
@media (max-width: 40rem) { .scale { display: none; } }
.scale i { position: absolute; height: 100%; border-radius: .35rem; background: var(--bar); opacity: .45; }
.scale b { position: absolute; width: 3px; height: 100%; background: var(--bar); }
.bars { display: flex; align-items: flex-end; gap: 2px; height: 8rem; border-bottom: 1px solid var(--soft); }
.bars div { flex: 1; background: var(--bar); border-radius: 2px 2px 0 0; }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: .8rem; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
figure div { display: flex; gap: 2px; align-items: flex-start; } figure img { width: calc(50% - 1px); display: block; }
figcaption { padding: .4rem .6rem; overflow-wrap: anywhere; } figcaption small { color: var(--soft); display: block; }
"""


def page(report: dict[str, Any], pictures: dict[str, dict[int, list[bytes]]]) -> str:
    """The page of a report; `pictures`: split -> place of a case -> JPEGs of its true mask and its prediction."""
    compared = report["compared_with"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report["title"])}</title><style>{STYLE}</style></head><body>
<h1>{escape(report["title"])}</h1>
<p>Figures in percent; intervals: {escape(report["interval"])}.</p>
{f"<p>Differences: this evaluation minus {escape(compared)}, sentence by sentence.</p>" if compared else ""}
{"".join(_split(name, split, pictures[name]) for name, split in report["splits"].items())}
</body></html>
"""


def _split(name: str, split: dict[str, Any], pictures: dict[int, list[bytes]]) -> str:
    groups = "".join(_groups(title, group) for title, group in split["groups"].items() if group)
    cases = "".join(_cases(kind, places, split["table"], pictures) for kind, places in split["cases"].items())
    return f"""<h2>{escape(name)}</h2><p>{split["sentences"]} sentences of {split["photos"]} photos</p>
{_figures(split["figures"], split.get("differences", {}))}
<h3>Sentences by IoU</h3>{_histogram(split["histogram"])}
{groups}<p>In pictures: left the true mask, right the prediction; the rest of the photo is veiled.</p>{cases}"""


def _figures(figures: dict[str, Any], differences: dict[str, Any]) -> str:
    rows = []
    for name, figure in figures.items():
        difference = f"<td>{_number(differences[name], '+.2f')}</td>" if differences else ""
        rows.append(f"<tr><th>{name}</th><td>{_number(figure)}</td>{difference}<td>{_scale(figure)}</td></tr>")
    return _table(["figure", "value", *(["difference"] if differences else []), ""], rows)


def _groups(title: str, group: dict[str, Any]) -> str:
    rows = [
        f"<tr><th>{escape(name)}</th><td>{figures['sentences']}</td>"
        + "".join(f"<td>{_number(figures[figure])}</td>" for figure in GROUP_FIGURES)
        + "</tr>"
        for name, figures in group.items()
    ]
    return f"<h3>{escape(title)}</h3>{_table(['', 'sentences', *GROUP_FIGURES], rows)}"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _number(figure: dict[str, float | None], form: str = ".2f") -> str:
    """A value with its interval below."""
    if figure["low"] is None:
        return "-"
    return f"{figure['value']:{form}}<small>{figure['low']:{form}} to {figure['high']:{form}}</small>"


def _scale(figure: dict[str, float | None]) -> str:
    """The interval as a band and the value as a stroke, from 0 to 100."""
    if figure["low"] is None:
        return ""
    width = figure["high"] - figure["low"]
    band, stroke = f"left:{figure['low']}%;width:{width:.2f}%", f"left:{figure['value']}%"
    return f'<div class="scale"><i style="{band}"></i><b style="{stroke}"></b></div>'


def _histogram(counts: Sequence[int]) -> str:
    highest = max(counts)
    bars = "".join(
        f'<div style="height:{100 * count / highest:.1f}%" title="{i / len(counts):.2f} to '
        f'{(i + 1) / len(counts):.2f}: {count} sentences"></div>'
        for i, count in enumerate(counts)
    )
    return f'<div class="bars">{bars}</div><div class="ends"><span>0</span><span>IoU</span><span>1</span></div>'


def _cases(kind: str, places: Sequence[int], table: dict[str, Any], pictures: dict[int, list[bytes]]) -> str:
    figures = []
    for place in places:
        outcome = table["outcome"][place]
        images = "".join(
            f'<img alt="{alt}" src="data:image/jpeg;base64,{b64encode(picture).decode()}">'
            for alt, picture in zip(("true mask", "prediction"), pictures[place], strict=True)
        )
        text, photo = escape(table["text"][place]), escape(table["photo"][place])
        caption = f"{text}<small>IoU {100 * outcome.iou:.1f}, {photo}</small>"
        figures.append(f"<figure><div>{images}</div><figcaption>{caption}</figcaption></figure>")
    return f'<h3>The {len(places)} {kind}</h3><div class="cases">{"".join(figures)}</div>'
