"""Finished figures of a run: SVG and PNG, a title, alt text, and a note of what each rests on.

`analysis.figures` draws on axes; this module chooses the data and says it in words. The figures of
the search are in `analysis.search.drawings`.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import figures, statistics
from analysis.claims import (
    REPORT_EPOCHS,
    REPORT_HARDWARE,
    REPORT_MSE_RATIO,
    REPORT_TIME_RATIO,
    REPORT_TRAIN_SECONDS,
)
from analysis.statistics import CONV_NAME, DENSE_NAME
from analysis.words import (
    count,
    digits,
    interval,
    setting_note,
    values_of,
)
from study.folder import schema

PNG_DPI: Final = 200


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: of its files, without suffix.
        title: in a few words.
        alt: what it shows, in words and numbers.
        note: what it rests on.
        inline_svg: the figure without the note, for the page, its ids unique there.
        files: contents by suffix; these have the note in the picture.
        report: what the reference report shows or states in its place; "" for nothing.
    """

    name: str
    title: str
    alt: str
    note: str
    inline_svg: str
    files: Mapping[str, bytes]
    report: str = ""


def draw_reference(
    manifest: Mapping[str, Any],
    epochs: pd.DataFrame,
    reference: pd.DataFrame,
    reconstructions: pd.DataFrame,
) -> list[Drawing]:
    """The report's figures, as far as the run has data for them.

    Args:
        manifest: of `analysis.load.load_manifest`.
        epochs: of `analysis.load.load_run`.
        reference: of `analysis.statistics.reference_trials`.
        reconstructions: of `analysis.load.load_reconstructions`.
    """
    with figures.style():
        drawn = [
            _draw_reconstructions(manifest, reference, reconstructions),
            _draw_conv(manifest, reference, epochs),
            _draw_log(
                manifest, reference, epochs, schema.TRAIN_MSE, "figure-3-training", "Training"
            ),
            _draw_log(manifest, reference, epochs, schema.TEST_MSE, "figure-4-test", "Test"),
            _draw_times(manifest, reference),
        ]
    return [drawing for drawing in drawn if drawing is not None]


def _draw_reconstructions(
    manifest: Mapping[str, Any], reference: pd.DataFrame, reconstructions: pd.DataFrame
) -> Drawing | None:
    shown = figures.shown_trials(reconstructions, reference)
    rows = figures.digit_rows(reconstructions, shown)
    if not rows:
        return None
    n_digits = len(rows["original"])
    figure, ax = figures.new_figure(0.44 * len(rows) + 0.15)
    figures.plot_reconstructions(rows, ax)
    shown = shown[shown["name"].isin(rows)]
    return finish(
        figure,
        "figure-1-reconstructions",
        "Figure 1. Random test digits and their reconstructions",
        f"{n_digits} random test digits, a row each: {', '.join(rows)}.",
        f"Seed {values_of(shown['seed'])}, {setting_note(manifest, shown)}",
        "random test digits, original above, reconstruction below; “the autoencoder works well”,"
        " by eye.",
    )


def _draw_conv(
    manifest: Mapping[str, Any], reference: pd.DataFrame, epochs: pd.DataFrame
) -> Drawing | None:
    conv = reference[reference["name"] == CONV_NAME]
    data = {
        images: statistics.curves(conv, epochs, metric)
        for images, metric in (("training", schema.TRAIN_MSE), ("test", schema.TEST_MSE))
    }
    if any(curve.empty for curve in data.values()):
        return None
    figure, ax = figures.new_figure()
    figures.plot_conv_curves(data, ax)
    ends = " and ".join(
        f"{images} MSE falls from {digits(curve['mean'].iloc[0])} to"
        f" {digits(curve['mean'].iloc[-1])}"
        for images, curve in data.items()
    )
    return finish(
        figure,
        "figure-2-conv",
        "Figure 2. Convolutional autoencoder: MSE against epoch",
        f"Over {count(data['test']['epoch'].max(), 'epoch')}, {ends}.",
        "The training MSE is the mean over the epoch while the weights move; the test MSE is"
        f" measured at its end. {setting_note(manifest, conv)}",
        f"over {REPORT_EPOCHS} epochs a great fall at the beginning, then little by little; it"
        " states no value.",
    )


def _draw_log(
    manifest: Mapping[str, Any],
    reference: pd.DataFrame,
    epochs: pd.DataFrame,
    metric: str,
    name: str,
    images: str,
) -> Drawing | None:
    data = statistics.curves(reference, epochs, metric)
    if data.empty:
        return None
    figure, ax = figures.new_figure()
    figures.plot_log_mse(data, ax, images)
    ends = data.groupby("name", sort=False).tail(1)
    values = ", ".join(f"{row['name']} {digits(row['mean'])}" for _, row in ends.iterrows())
    number = name.split("-")[1]
    return finish(
        figure,
        name,
        f"Figure {number}. {images} set: log MSE against epoch",
        f"{images} MSE, log axis, after {count(data['epoch'].max(), 'epoch')}: {values}.",
        setting_note(manifest, reference),
        f"{CONV_NAME} at half of {DENSE_NAME}'s MSE, {DENSE_NAME} ÷ {CONV_NAME}"
        f" {REPORT_MSE_RATIO:g}; here"
        f" {interval(statistics.ratio_of(reference, metric, DENSE_NAME, CONV_NAME))}.",
    )


def _draw_times(manifest: Mapping[str, Any], reference: pd.DataFrame) -> Drawing | None:
    shown = reference[reference["name"].isin([CONV_NAME, DENSE_NAME])]
    shown = shown.dropna(subset="train_seconds")
    if shown.empty:
        return None
    here = f"this run\n{count(shown['epochs'].iloc[0], 'epoch')}"
    report = f"the report\n{REPORT_EPOCHS} epochs\n{REPORT_HARDWARE}"
    bars = []
    for name in statistics.names(shown):
        seconds = statistics.metric_by_seed(shown, name, "train_seconds")
        bars.append(figures.TimeBar(here, name, float(seconds.mean()), tuple(seconds)))
    stated = REPORT_TRAIN_SECONDS.items()
    bars += [figures.TimeBar(report, name, seconds) for name, seconds in stated]
    figure, ax = figures.new_figure()
    figures.plot_times(bars, ax)
    values = "; ".join(
        f"{bar.source.splitlines()[0]}, {bar.name}: {bar.mean_seconds:.3g} s" for bar in bars
    )
    return finish(
        figure,
        "figure-5-times",
        "Figure 5. Training time, measured and as the report states it",
        f"Training times: {values}.",
        f"Weight updates only, without compilation and evaluation{side_by_side(manifest)}; dots"
        " are seeds. Hardware and versions differ from the report's."
        f" {setting_note(manifest, shown, spread=False)}",
        f"{REPORT_TRAIN_SECONDS[CONV_NAME]:g} s against {REPORT_TRAIN_SECONDS[DENSE_NAME]:g} s,"
        f" {CONV_NAME} ÷ {DENSE_NAME} {REPORT_TIME_RATIO}; here"
        f" {interval(statistics.ratio_of(shown, 'train_seconds', CONV_NAME, DENSE_NAME))}.",
    )


def side_by_side(manifest: Mapping[str, Any]) -> str:
    """How many trials trained at once: a time beside others is not a time alone; "" for one."""
    resources = manifest["resources"]
    n = resources["max_concurrent"]
    where = "cluster" if resources.get("address") else "machine"
    return f"; up to {n} trials trained at once on this {where}" if n > 1 else ""


def finish(figure: Figure, name: str, title: str, alt: str, note: str, report: str = "") -> Drawing:
    """Saves a figure in every form that the report needs; see `Drawing` for the arguments."""
    height_points = 72 * figure.get_figheight()  # without the note
    figures.add_footnote(figure, note)
    svg = _svg(figure, name)
    # Laid out by now, it is drawn without `savefig`, which would lay it out and draw it once more.
    figure.set_layout_engine("none")
    figure.set_dpi(PNG_DPI)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]
    inline_svg = _inline(svg, name, f"{title}. {alt}", height_points)
    return Drawing(name, title, alt, note, inline_svg, {"svg": svg, "png": png.getvalue()}, report)


def _svg(figure: Figure, name: str) -> bytes:
    """The same bytes for the same figure: a fixed salt for the ids, and no date."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _inline(svg: bytes, name: str, label: str, height_points: float) -> str:
    """An SVG for the page: its ids unique there (glyphs would be mixed up), a label, no note.

    Its colors are variables, such as --ink-0b4a7f, which `analysis.page.markup.dark_inks` defines.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    group = rf'^( *)<g id="{figures.FOOTNOTE}">.*?^\1</g>\n'
    text = re.sub(group, "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*" height="[^"]*" viewBox="0 0 (\S+) [^"]*"',
        rf'\g<1> viewBox="0 0 \g<2> {height_points:g}"',
        text,
        count=1,
    )
    text = re.sub(r"(?<=: )#([0-9a-f]{6})", r"var(--ink-\1, #\1)", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
