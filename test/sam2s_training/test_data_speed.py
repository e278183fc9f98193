"""The table of `python -m sam2s_training.data.speed`."""

from __future__ import annotations

import torch

from sam2s_training.data.speed import main


def test_the_table_has_a_row_a_size(capsys) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["--sizes", "32", "--frames", "2", "--clips", "2", "--batch", "2"]) == 0
    finally:
        torch.set_num_threads(threads)
    header, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert "render ms" in header
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [["32", "2"]]
    assert all(float(cell) > 0 for row in cells for cell in row)
    assert float(cells[0][3]) < float(cells[0][2])  # a shard is read sooner than it is rendered
