"""Pages that are written when the site is built: of notebooks, tables and the package's stub."""

import ast
import functools
import itertools
import json
import re
from pathlib import Path

import pandas as pd
from pybtex.database import parse_file

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DATA = ROOT / "notebooks" / "data"
PAGES = ["lecturers", "theorems", "verdicts", "figure2", "neural-tangents", "api", "bibliography"]

NUMBER = re.compile(r"(Theorem|Lemma|Corollary) \d+\.\d+")
KINDS = {  # of a box, by what stands in its head
    "theorem": r"^Theorem|, Theorem \d",
    "lemma": r"^Lemma",
    "corollary": r"^Corollary",
    "remark": r"^Remark|abstract|recall",
    "definition": r"^The limit object",
    "proposition": r"algebra|derived here|^[^(]*$",
}


def complete(app, docname, source):  # noqa: ARG001
    """Append what is generated to a page, and put links on top of a notebook."""
    folder, name = docname.split("/")
    if folder == "notebooks":
        source[0] = with_statements(name, source[0])
    elif name in GENERATED:
        source[0] += "\n" + GENERATED[name]()


# --- the table of contents ------------------------------------------------------------------------


def contents() -> str:
    """Return both tables of contents: the notebooks, by their short names, and the pages."""
    notebooks = [f"{short(path.stem)} </notebooks/{path.stem}>" for path in NOTEBOOKS]
    pages = [page for page in PAGES if (ROOT / "book" / f"{page}.md").exists()]
    return toctree("Notebooks", notebooks) + toctree("Pages", pages)


def toctree(caption: str, entries: list[str]) -> str:
    """Return a table of contents for the sidebar."""
    options = f":hidden:\n:caption: {caption}\n"
    return "```{toctree}\n" + options + "\n" + "\n".join(entries) + "\n```\n\n"


def short(stem: str) -> str:
    """Return the name of a notebook as the README writes it: 03 one wide layer."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"\[([^\]]*)\]\(notebooks/{stem}\.ipynb\)", readme)
    return found.group(1) if found else stem.replace("-", " ")


# --- the statements -------------------------------------------------------------------------------


def statements() -> str:
    """Return a section for each notebook that has a statement, its block quotes as boxes."""
    return "\n\n".join(section for section, _ in _sections().values())


def with_statements(stem: str, notebook: str) -> str:
    """Add, below the title of a notebook, links to the boxes of what it measures."""
    if stem not in _sections():
        return notebook
    content = json.loads(notebook)
    _, labels = _sections()[stem]
    links = ", ".join(f"{{prf:ref}}`{label}`" for label in labels)
    text = f"On the page [Theorems](../book/theorems.md): {links}."
    cell = {"cell_type": "markdown", "metadata": {}, "source": text}
    content["cells"].insert(1, cell | {"id": "statements"})
    return json.dumps(content)


@functools.cache
def _sections():
    """The section of each notebook on the page, and the labels of its boxes."""
    seen, sections = {}, {}
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        source = texts[0].strip().split("\n\n")[-1]
        for text in texts:
            if re.match(r"## The statements?\n", text):
                sections[path.stem] = _section(path, source, text.splitlines()[1:], seen)
    return sections


def _section(path, source, lines, seen):
    """One section; `seen` has the labels of the numbered statements that have a box already."""
    link = f"[notebook {path.stem[:2]}](../notebooks/{path.name})"
    paper = re.search(r"arXiv:[\dv.]+\d", source).group()
    prose, parts, labels = [], [], []
    for quoted, group in itertools.groupby(lines, lambda line: line.startswith(">")):
        if not quoted:
            prose.append(len(parts))
            parts.append("\n".join(group))
            continue
        head, body = _statement(group)
        number = NUMBER.match(head)
        number = number and number.group()
        if number in seen:
            labels.append(seen[number])
            parts.append(f"{number} and its hypotheses: {{prf:ref}}`{labels[-1]}`.\n")
            continue
        labels.append(f"statement-{path.stem[:2]}-{len(labels) + 1}")
        if number:
            seen[number] = labels[-1]
            head = head.replace(number, f"{number} of {paper}")
        parts.append(_box(head, f"{body}\n\nMeasured in {link}.", labels[-1]))
    if any(not label.startswith(f"statement-{path.stem[:2]}") for label in labels):
        # notation and hypotheses stand beside the box, in the section of another notebook
        for i in prose:
            kept = [p for p in parts[i].split("\n\n") if p.strip().startswith("**")]
            parts[i] = "\n\n".join(kept) + "\n"
    top = f"## {short(path.stem)}\n\nMeasured in {link}. {_cited(source)}\n"
    return "\n".join([top, *parts]), labels


def _statement(lines):
    """The head of a block quote, without its stars, and what it says."""
    block = "\n".join(line.removeprefix(">").removeprefix(" ") for line in lines)
    head, body = re.match(r"(\*\*.+?\*\*(?: \([^)]*\))?)\.?\s+(.*)", block, re.DOTALL).groups()
    return head.replace("**", "").rstrip("."), body


def _box(head, body, label):
    kind = next((kind for kind, found in KINDS.items() if re.search(found, head)), "theorem")
    title = re.sub(r" \((.*)\)$", r", \1", head).removeprefix("Theorem, ").removeprefix("Remark")
    return f"````{{prf:{kind}}} {title}\n:label: {label}\n\n{body}\n````\n"


def _cited(text):
    """Put a citation behind each link to arXiv."""
    keys = {
        entry.fields["eprint"]: key
        for key, entry in parse_file(ROOT / "notebooks" / "references.bib").entries.items()
    }
    cite = lambda link: f"{link.group()} {{cite}}`{keys[link.group(1)]}`"  # noqa: E731
    return re.sub(r"\[arXiv:(\d{4}\.\d{5})\w*\]\([^)]*\)", cite, text)


# --- the tables -----------------------------------------------------------------------------------


def verdicts(path: Path = DATA / "verdicts.csv") -> str:
    """Return the claims of each notebook in a table, with the counts of seeds.

    Args:
      path: the file that has them.
    """
    if not path.exists():
        return f"There is no table yet: `{path.parent.name}/{path.name}` is missing.\n"
    rows = pd.read_csv(path, keep_default_na=False, dtype=str)
    outcomes = ["holds", "not_reached", "fails"]
    seeds = rows[outcomes].astype(int)
    sums = ", ".join(f"{kind} {count}" for kind, count in rows["kind"].value_counts().items())
    totals = f"{seeds['holds'].sum()} hold, {seeds['not_reached'].sum()} are not reached and"
    parts = [f"{len(rows)} claims: {sums}. Over all seeds, {totals} {seeds['fails'].sum()} fail.\n"]
    for stem, of_notebook in rows.groupby("notebook", sort=True):
        parts.append(f"## {short(stem)}\n\n[The notebook](../notebooks/{stem}.ipynb).\n")
        columns = ["claim", "kind", "source", "control", *outcomes]
        parts.append(table(of_notebook[columns].rename(columns={"not_reached": "not reached"})))
    return "\n".join(parts)


def figure2() -> str:
    """Return the figure of notebook 03 and, for each panel, our means beside the published ones."""
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith("03")]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    picture = next(o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {}))
    alt = (
        "Two panels. Right: λ_min of the kernel against the number of samples, three curves that "
        "rise along straight lines; left: against the dimension, three curves that bend upwards. "
        "Our means lie on the published crosses, below the limit of infinite width."
    )
    parts = [f"![{alt}](data:image/png;base64,{''.join(picture.split())})\n"]
    point = ["panel", "d", "n_samples", "n_1", "n_2"]
    points = pd.read_csv(DATA / "figure2.csv")
    published = pd.read_csv(DATA / "nguyen21_figure2.csv").set_index(point)["lambda_min"]
    for panel, of_panel in points.groupby("panel", sort=False):
        keys = pd.MultiIndex.from_frame(of_panel[point].assign(panel=panel.partition(",")[0]))
        error = of_panel["sd"] / of_panel["trials"] ** 0.5
        shown = of_panel[point[1:]].rename(columns={"n_samples": "N", "n_1": "n₁", "n_2": "n₂"})
        shown["ours"] = of_panel["mean"].round().astype(int)
        shown["±"] = error.round().astype(int)
        shown["published"] = published.reindex(keys).to_numpy()
        side, _, sphere = panel.partition(", ")
        title = f"{side.capitalize()} panel" + (", samples on a sphere" if sphere else "")
        parts.append(f"## {title}\n\n{table(shown)}")
    return "\n".join(parts)


def table(rows: pd.DataFrame) -> str:
    """Return a table in Markdown, every cell as plain text."""
    lines = [list(rows), ["---"] * len(rows.columns), *rows.astype(str).values.tolist()]
    lines = [lines[0], lines[1], *[[plain(cell) for cell in line] for line in lines[2:]]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plain(text: str) -> str:
    """Escape whatever Markdown would read as more than a character."""
    return re.sub(r"([\\`*_{}\[\]<>()#$|~])", r"\\\1", " ".join(text.split()))


# --- the functions --------------------------------------------------------------------------------

PACKAGE = ROOT / "ntk_utils"
FLOW = (
    "data networks activations kernels operators spectra bounds training report explorer lab "
    "figure2 bombari22 compat mean_field quantization"
)
WHOLE = ["activations", "bombari22", "figure2", "lab.plotting"]  # used as modules, like both rooms
WHOLE += [f"{room.parent.name}.{room.stem}" for room in sorted(PACKAGE.glob("[mq]*/[a-z]*.py"))]


def api() -> str:
    """Return a section for each room, with the names that it makes public."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
    rooms = {alias.name: [] for node in stub if not node.module for alias in node.names}
    for node in stub:
        if node.module:
            rooms.setdefault(node.module, []).extend(alias.asname for alias in node.names)
    rooms |= {room: [] for room in WHOLE}
    parts = []
    for room in sorted(rooms, key=lambda room: (FLOW.find(room.partition(".")[0]), room)):
        members = "" if room in WHOLE else ", ".join(n for n in rooms[room] if n != "plotting")
        option = f"   :members: {members}\n" if members or room in WHOLE else ""
        directive = f".. automodule:: ntk_utils.{room}\n{option}"
        parts.append(f"## ntk_utils.{room}\n\n```{{eval-rst}}\n{directive}```\n")
    return "\n".join(parts)


def readable(app, what, name, obj, options, lines):  # noqa: ARG001
    """Make reStructuredText of a docstring: formulas stay as they are set, stars are stars.

    A block that is indented below an empty line is a formula. In "Args:" and in what continues a
    line it is text.
    """
    section = formula = False
    text = []
    for before, line in itertools.pairwise(["", *lines]):
        if line and not line.startswith(" "):
            section, formula = line.endswith(":") and " " not in line, False
            line = re.sub(r"^(Returns|Source|Raises): ", r":\1: ", line)
        elif line and not (section or formula or before):
            formula = True
            text += ["::", ""]
        text.append(line if formula else literal(line))
    lines[:] = text


def literal(line: str) -> str:
    """Escape whatever reStructuredText would read as more than a character, outside of code."""
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"([*|\\]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


GENERATED = {
    "index": contents,
    "theorems": statements,
    "verdicts": verdicts,
    "figure2": figure2,
    "api": api,
}
