"""Plain tables that read well both in a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows under a header as an aligned Markdown table; numbers stand to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {row}")
    widths = [max(3, *(len(row[i]) for row in [list(header), *cells])) for i in range(len(header))]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = ("-" * (width - 1) + (":" if r else "-") for width, r in zip(widths, right, strict=True))
    return "\n".join([line(header), "| " + " | ".join(rule) + " |", *map(line, cells)])


def _is_number(text: str) -> bool:
    return not text.strip(" ±+-–×%.,0123456789") or text in {"nan", "n/a"}
