"""The report as Markdown with separate figure files, and as one self-contained HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from momalit.studies.load_results import Results, column_values
from momalit.studies.statistics import RESAMPLES
from momalit.studies.tables import Table, all_tables

FIGURES = "figures"


@dataclass(frozen=True)
class Figure:
    """A figure: its name, caption and SVG."""

    name: str
    caption: str
    svg: str


def heading(results: Results, title: str | None) -> tuple[str, list[str]]:
    """Returns the title, and the paragraphs before the first table."""
    study = results.study_file
    paragraphs = [str(study["description"]).strip()] if study.get("description") else []
    if study.get("budget"):
        paragraphs.append(f"Budget of each run: {str(study['budget']).strip()}")
    paragraphs.append(_facts(results))
    return title or str(study.get("title") or "Comparison"), paragraphs


def _facts(results: Results) -> str:
    seeds = sorted({int(row["seed"]) for row in results.runs})
    episodes = sorted({int(row["episodes"]) for row in results.runs if row.get("episodes")})
    modes = {str(row.get("deterministic")) for row in results.runs}
    mode = {"True": " with deterministic actions", "False": " with sampled actions"}.get(next(iter(modes)), "")
    versions = [
        f"{name} {', '.join(sorted({str(row[name]) for row in results.runs if row.get(name)}))}"
        for name in ("momalit", "torch", "mujoco")
        if any(row.get(name) for row in results.runs)
    ]
    test = (
        f" {' or '.join(map(str, episodes))} test episodes per run{mode if len(modes) == 1 else ''}."
        if episodes
        else ""
    )
    return (
        f"{len(results.runs)} runs, seeds {', '.join(map(str, seeds))}.{test} {'; '.join(versions)}.".rstrip(" .") + "."
    )


def method_note(results: Results) -> str:
    """Returns a note on how the numbers are computed, and on their limits."""
    counts = [len(results.select(group, m)) for group in results.groups for m in results.methods_in(group)]
    note = (
        "Returns are those of the last checkpoint, except in the column for the best checkpoint, which is the one"
        " selected at validations during training. IQM is the interquartile mean. Intervals are 95 % percentile"
        f" bootstrap intervals over seeds, stratified by group if groups are pooled ({RESAMPLES:,} resamples, fixed"
        " seed, so the same results give the same report). The probability of improvement counts ties as half (Agarwal"
        " et al., 2021)."
    )
    if any(len(column_values(results.select(group), "distance")) for group in results.groups):
        note += (
            " Distance is the distance of the team's real states and actions from their nearest neighbours in the"
            " training data, divided by the same distance for held-out episodes of the dataset."
        )
    if results.teams:
        note += " Cross-play intervals are over teams. They are too narrow, because teams share agents."
    if min(counts) < 2:
        note += " One seed gives no interval, so a small difference may be due to chance."
    elif min(counts) < 5:
        note += f" With {min(counts)} seeds, bootstrap intervals are too narrow: they cannot exceed the observed range."
    return note


def markdown(results: Results, figures: Sequence[Figure], title: str | None = None) -> str:
    """Returns the report as Markdown. Its figures are files in ``figures/``."""
    name, paragraphs = heading(results, title)
    parts = [f"# {name}", *paragraphs]
    for table in all_tables(results):
        parts += [f"## {table.title}", _markdown_table(table)]
    if figures:
        parts.append("## Figures")
    parts += [f"![{figure.caption}]({FIGURES}/{figure.name}.svg)\n\n{figure.caption}" for figure in figures]
    parts += ["## How to read this", method_note(results)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [_markdown_row(table.header), _markdown_row(["---", *["---:"] * (len(table.header) - 1)])]
    for number, row in enumerate(table.rows):
        highlighted = [f"**{cell}**" if cell and i < 2 else cell for i, cell in enumerate(row)]
        lines.append(_markdown_row(highlighted if number in table.best else row))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --background: #fff; --line: #ddd; --muted: #666;
  --highlight: #fff4e8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --background: #16181c; --line: #3a3d44; --muted: #a0a4ab; --highlight: #3a2c1c; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--background); margin: 0 auto;
  max-width: 60rem; padding: 1.5rem; }
h1, p { overflow-wrap: anywhere; } h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--muted); font-weight: 600; }
tr.best td { background: var(--highlight); font-weight: 600; }
tr.reference td { color: var(--muted); }
pre { overflow-x: auto; font-size: 0.8rem; } img { max-width: 100%; }
figure { margin: 1.5rem 0; } figure svg { width: 100%; min-width: 36rem; height: auto; background: #fff;
  border-radius: 6px; }
figcaption { color: var(--muted); font-size: 0.9rem; }
@media print { .wide { overflow: visible; } figure svg { min-width: 0; } table { font-size: 7.5pt; }
  th, td { padding: 0.2rem 0.3rem; }
  th { white-space: normal; } }
""".strip()


def page(results: Results, figures: Sequence[Figure], title: str | None = None) -> str:
    """Returns the report as one HTML file, which loads no other files."""
    name, paragraphs = heading(results, title)
    end = ["<h2>How to read this</h2>", f"<p>{html.escape(method_note(results))}</p>"]
    return plain_page(name, paragraphs, list(all_tables(results)), figures, end)


def plain_page(
    title: str, paragraphs: Sequence[str], tables: Sequence[Table], figures: Sequence[Figure], end: Sequence[str] = ()
) -> str:
    """Returns paragraphs, tables and figures as one HTML file, which loads no other files.

    Args:
        title: title of the page.
        paragraphs: text before the first table.
        tables: the tables.
        figures: the figures, which follow the tables.
        end: HTML after the figures.
    """
    body = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(text)}</p>" for text in paragraphs)]
    for table in tables:
        body += [f"<h2>{html.escape(table.title)}</h2>", _html_table(table)]
    if figures:
        body.append("<h2>Figures</h2>")
    for figure in figures:
        drawing = _prefix_ids(figure.svg[figure.svg.index("<svg") :], figure.name)
        drawing = f'<div class="wide">{drawing}</div>'
        body.append(f"<figure>{drawing}<figcaption>{html.escape(figure.caption)}</figcaption></figure>")
    body += end
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n</style>"
    )
    content = "\n".join(body)
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{content}\n</body>\n</html>\n'


def _html_table(table: Table) -> str:
    lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in table.header)}</tr>"]
    for number, row in enumerate(table.rows):
        kind = "best" if number in table.best else "reference" if row[0].startswith("*") else ""
        cells = "".join(f"<td>{html.escape(cell.strip('*'))}</td>" for cell in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    content = "\n".join(lines)
    return f'<div class="wide"><table>\n{content}\n</table></div>'


def _prefix_ids(svg: str, name: str) -> str:
    """Prefixes the ids in an SVG with the figure's name, so that they are unique in the HTML page."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
