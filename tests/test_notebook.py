"""The notebook runs from its question to its answer, and lies in the repository without output."""

from copy import deepcopy
from pathlib import Path

import nbclient
import nbformat
import numpy as np

ROOT = Path(__file__).parents[1]
NOTEBOOK = nbformat.read(ROOT / "examples" / "custom-question.ipynb", as_version=4)


def test_it_has_no_output():
    code = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_it_answers_its_question(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sizes = {"x_train": 120, "x_test": 20}
    images = {name: rng.integers(0, 256, (n, 28, 28), np.uint8) for name, n in sizes.items()}
    np.savez(tmp_path / "noise.npz", **images)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = deepcopy(NOTEBOOK)
    (asks,) = [cell for cell in notebook.cells if "\nquestion = " in cell.source]
    asks.source = asks.source.replace("\nquestion", '\ndata = "noise.npz"\nquestion')  # not MNIST
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1000, resources=where).execute()
    shown = [
        {kind: part for output in cell.outputs for kind, part in output.get("data", {}).items()}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    answer, figure, polars, duckdb = shown[1:]
    for label in ("dense-64", "dense-64 learning_rate=2.0", "dense-64 learning_rate=4.0"):
        assert f"<td>{label}</td>" in answer["text/html"]
    assert "image/png" in figure
    assert "dense-64 learning_rate=2.0" in polars["text/html"]
    assert "setting" in duckdb["text/html"]
    assert list(tmp_path.glob("results/*/report/index.html"))
