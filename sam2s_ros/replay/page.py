"""The bones of an HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = """
:root{--ink:#1d2733;--muted:#66717f;--line:#dfe4ea;--ground:#f5f7f9;--blue:#2f6fde}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 2px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:18px;margin:34px 0 10px}
h3{font-size:15px;margin:0 0 6px;display:flex;gap:10px;align-items:center;flex-wrap:wrap}
p{margin:6px 0}.muted{color:var(--muted)}
.card{background:#fff;border:1px solid var(--line);border-radius:10px;padding:16px 18px;
 margin:12px 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;
 margin:18px 0}
.fact{background:#fff;border:1px solid var(--line);border-radius:10px;padding:11px 14px}
.fact b{display:block;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}
.fact span{color:var(--muted);font-size:12.5px}
.warn{border-left:4px solid #e6a817}.bad{border-left:4px solid #cf4b3f}
.warn ul,.bad ul{margin:6px 0;padding-left:20px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:12.5px;vertical-align:bottom}
td.n,.nb{white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr:last-child td{border-bottom:0}
td.wrap{overflow-wrap:anywhere}
code{font:12.5px/1.4 ui-monospace,"DejaVu Sans Mono",Menlo,monospace;overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block;font-family:inherit}
.chip{display:inline-block;width:12px;height:12px;border-radius:3px;border:1px solid #0002}
.key{display:inline-flex;align-items:center;gap:5px;margin-right:14px;font-size:13px;
 color:var(--muted);white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}
figure{margin:0;background:#fff;border:1px solid var(--line);border-radius:10px;overflow:hidden}
figure img{width:100%;display:block;background:#111}
figcaption{padding:9px 13px;font-size:13.5px}
details{margin:10px 0}summary{cursor:pointer;color:var(--blue)}
a{color:var(--blue)}
@media print{body{background:#fff}.card,.fact,figure{break-inside:avoid}}
"""


class Cell(str):
    """Text of a table cell that is HTML already."""


def page(title: str, body: Sequence[str]) -> str:
    """Put the parts of a page together."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """Make a table; the columns in `numbers` stand to the right."""

    def cells(row: Sequence[Any], tag: str) -> str:
        made = []
        for k, value in enumerate(row):
            text = value if isinstance(value, Cell) else escape(str(value))
            made.append(f"<{tag}{' class=n' if k in numbers else ''}>{text}</{tag}>")
        return "<tr>" + "".join(made) + "</tr>"

    body = "".join(cells(row, "td") for row in rows)
    head = f"<thead>{cells(header, 'th')}</thead>" if any(header) else ""
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def card(content: str, kind: str = "") -> str:
    """Put content on a white card; `kind` is warn or bad for a coloured edge."""
    return f'<div class="card {kind}">{content}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Show figures in large type, each with a caption."""
    shown = (
        f'<div class="fact"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in pairs
    )
    return f'<div class="facts">{"".join(shown)}</div>'


def bullets(lines: Sequence[str]) -> str:
    """Make a list."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def chip(colour: str) -> Cell:
    """Make a small patch of colour."""
    return Cell(f'<span class="chip" style="background:{colour}"></span>')


def unbroken(text: str) -> Cell:
    """Keep a text on one line."""
    return Cell(f'<span class="nb">{escape(text)}</span>')


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Explain colours; one that is empty stands for a sign that the name begins with."""
    keys = []
    for colour, name in entries:
        patch = chip(colour) if colour else ""
        keys.append(f'<span class="key">{patch} {escape(name)}</span>')
    return f"<p>{''.join(keys)}</p>"


def picture(jpeg: bytes, text: str) -> str:
    """Show a picture with a caption; the caption is HTML."""
    data = base64.b64encode(jpeg).decode()
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
