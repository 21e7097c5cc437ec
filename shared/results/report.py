"""The report of a paper at one scale: report.html (one self-contained file) and report.md.

The same tables and claims give the same bytes: nothing in a report depends on when or where it is
made.
"""

from pathlib import Path
from typing import Any

from shared.errors import ConfigError
from shared.files import write_text
from shared.imports import import_path
from shared.results.cells import Tables, read_tables
from shared.results.claims import read_results
from shared.results.figure import Figure, Listing
from shared.results.markdown import render_markdown
from shared.results.spec import parse_spec
from shared.results.tables import frame
from shared.results.view import page_of

TEMPLATES = Path(__file__).parent / "templates"


def run(spec: dict[str, Any]) -> None:
    """Write report.html and report.md from tables.json and claims.json of the job's folder."""
    typed = parse_spec(spec)
    tables = read_tables(typed.folder / "tables.json")
    claims = read_results(typed.folder / "claims.json")
    page = page_of(typed, tables, claims, draw(typed.figures, tables, spec))
    write_text(typed.folder / "report.html", render("report.html.j2", page=page))
    write_text(typed.folder / "report.md", render_markdown(page))


def draw(paths: list[str], tables: Tables, spec: dict[str, Any]) -> list[Figure | Listing]:
    """Figures and listings of every function `package.module:function`, each called with (long table, spec)."""
    table = frame(tables.cells)
    figures: list[Figure | Listing] = []
    for path in paths:
        try:
            draw_all = import_path(path)
        except (ModuleNotFoundError, AttributeError) as error:
            raise ConfigError(f"figures '{path}': {error}") from None
        figures += draw_all(table, spec)
    return figures


def render(template: str, **values: Any) -> str:
    """Render one of our templates; every value is escaped except a figure's own SVG."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
