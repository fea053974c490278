"""Notebook output: each step is one output of the cell, with coloured text and its figures in place."""

import base64
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from course.console.narrator import WIDTH, Narrator, Printer, reporting_to
from course.console.records import Picture, Record
from course.console.spelling import legible

PAUSE = 0.3  # seconds between two progress updates
TEXT = '<pre style="background: #fff; color: #222; line-height: 1.4; padding: 0 1em">{code}</pre>'


def publisher() -> Any:
    """The object that shows outputs below the running cell; None outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.display_pub if shell and getattr(shell, "kernel", None) else None


def make_narrator(outputs: Path, code: bool = True, checks: bool = False) -> Narrator:
    """The narrator for this environment: a console or a notebook."""
    if publish := publisher():
        return NotebookNarrator(publish, outputs, code, checks)
    return Narrator(outputs, code, checks)


class NotebookNarrator(Narrator):
    """Prints to outputs of the cell: one per step, and one for text before or after the steps."""

    theme = "ansi_light"

    def __init__(self, publish: Any, outputs: Path, code: bool = True, checks: bool = False):
        super().__init__(outputs, code, checks, Printer(
            file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False, markup=False, highlight=False,
            emoji=False))
        self.fancy, self.publish = True, publish
        self.html, self.plain, self.output = "", "", ""  # of this output: its contents, and its id once shown

    def begin(self, record: Record) -> None:
        self.flush()
        super().begin(record)
        self.update()

    def end(self, record: Record) -> None:
        super().end(record)
        self.flush()

    def show(self, shown: Any) -> None:
        super().show(shown)
        if isinstance(shown, Picture):
            self.take()
            png = base64.b64encode((self.outputs / shown.file).read_bytes()).decode()
            self.html += (f'<img src="data:image/png;base64,{png}" alt="{escape(shown.finding)}" '
                          'style="max-width: 100%">')

    def take(self) -> None:
        """Move the console's new text into this output."""
        html = self.console.export_html(clear=False, inline_styles=True, code_format=TEXT)
        if text := self.console.export_text():  # this empties the record
            self.plain += text
            self.html += html

    def update(self, more: str = "") -> None:
        """Show this output so far, and below it the progress text `more`."""
        self.take()
        if not self.plain and not more:
            return
        known, self.output = bool(self.output), self.output or str(uuid4())
        html = self.html + (TEXT.format(code=escape(more)) if more else "")
        self.publish.publish({"text/plain": self.plain + more, "text/html": html},
                             transient={"display_id": self.output}, update=known)

    def flush(self) -> None:
        """Show this output and begin a new one."""
        self.update()
        self.html = self.plain = self.output = ""

    @contextmanager
    def hearing_progress(self) -> Iterator[None]:
        """Inside `with`, the latest progress text is shown under the running step."""
        last = 0.0

        def hear(text: str) -> None:
            nonlocal last
            if time.monotonic() - last > PAUSE:
                last = time.monotonic()
                self.update(legible(text))

        with reporting_to(hear):
            yield
