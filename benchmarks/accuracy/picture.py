"""Draw accuracy against fit time on all data sets, from the tables of docs/accuracy.md.

python benchmarks/accuracy/picture.py
"""

import re
from pathlib import Path

import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[2] / "docs"
SYSTEMS = {
    "MultinomialNB, bigrams": ("naive Bayes", "s", "tab:gray"),
    "NB-SVM, bigrams": ("NB-SVM", "^", "tab:gray"),
    "TF-IDF + LogisticRegression": ("TF-IDF + logistic regression", "D", "tab:gray"),
    "encoder + LogisticRegression": ("encoder + logistic regression", "P", "tab:blue"),
    "LSTMTextClassifier, defaults": ("LSTMTextClassifier", "o", "tab:orange"),
}
#: What is drawn in black on a light page, in a light gray on a dark one.
STYLES = {"light": "default", "dark": "dark_background"}


def main():
    page = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    tables = read_tables(page)
    for name, points in read_encoders(page).items():
        tables[name] |= points
    for name, style in STYLES.items():
        # Text stays text, and the same picture is the same file.
        settings = {"svg.fonttype": "none", "svg.hashsalt": "sklstm"}
        with plt.style.context([style, settings]):
            draw(tables, DOCS / "images" / f"accuracy-{name}.svg")


def draw(tables, path):
    figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
    for axis, (name, points) in zip(axes.flat, tables.items(), strict=False):
        for title, (seconds, accuracy) in points.items():
            label, marker, color = SYSTEMS[title]
            axis.plot(seconds, accuracy, marker, color=color, label=label, markersize=8)
        axis.set(title=name, xscale="log", xlim=(0.05, 2000))
        axis.margins(y=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("seconds to fit")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy, %")
    # Of the panel with the most systems: some are not measured on all data sets.
    handles, labels = max(
        (axis.get_legend_handles_labels() for axis in axes.flat[:7]), key=lambda pair: len(pair[1])
    )
    last = axes.flat[-1]
    last.axis("off")
    last.legend(handles, labels, loc="center", frameon=False)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def read_encoders(page):
    """Return the same of the encoder, whose seconds are a multiple of TF-IDF's."""
    section = page.partition("<!-- encoders: begin -->")[2].partition("<!-- encoders: end -->")[0]
    tables, points = read_tables(page), {}
    for line in section.strip().splitlines()[2:]:
        name, accuracy, *_, ratio = (cell.strip() for cell in line.strip("|").split("|"))
        seconds, _ = tables[name]["TF-IDF + LogisticRegression"]
        point = (seconds * float(ratio.removesuffix(" ×")), float(accuracy))
        points[name] = {"encoder + LogisticRegression": point}
    return points


def read_tables(page):
    """Return by data set and system the seconds and the accuracy."""
    page = page.partition("## On the test rows")[2].partition("<!-- test: end -->")[0]
    tables = {}
    pattern = re.compile(r"^### (\S+)\n(.*?)(?=^### |\Z)", re.DOTALL | re.MULTILINE)
    for name, section in pattern.findall(page):
        lines = [line.strip("|").split("|") for line in section.splitlines() if line[:1] == "|"]
        header, *rows = [[cell.strip() for cell in cells] for cells in lines]
        seconds, accuracy = header.index("fit, s"), header.index("accuracy")
        tables[name] = {
            row[0]: (float(row[seconds]), float(row[accuracy].split()[0]))
            for row in rows
            if row[0] in SYSTEMS
        }
    return tables


if __name__ == "__main__":
    main()
