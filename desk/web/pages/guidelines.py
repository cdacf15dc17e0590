"""Guidelines: the newest, older versions, and the editor."""

from __future__ import annotations

from starlette.responses import Response

from desk.service import guidelines
from desk.web.visit import Page, Visit, redirect


def show(visit: Visit) -> Response:
    """Show the newest version, or the one in the address."""
    versions = guidelines.versions(visit.desk)
    wanted = visit.query.get("version", "")
    chosen = next((each for each in versions if str(each.version) == wanted), None)
    shown = chosen or (versions[0] if versions else None)
    return visit.page(
        "guidelines.html", shown=shown, versions=versions, labels=visit.desk.taxonomy.labels
    )


def edit(visit: Visit) -> Response:
    """Show the editor with the newest version; the first starts with a heading for each label."""
    newest = guidelines.current(visit.desk)
    if newest is not None:
        body = newest.body
    else:
        labels = visit.desk.taxonomy.labels
        body = "\n\n".join(f"## {label.name}\n\n{label.description}" for label in labels) + "\n"
    return visit.page(
        "guideline_edit.html", body=body, based_on=newest.version if newest is not None else ""
    )


def save(visit: Visit) -> Response:
    """Save the text as a new version."""
    based_on = visit.form.get("based_on", "")
    guidelines.save(
        visit.desk,
        visit.who,
        # Browsers send the line breaks of a text area as CRLF.
        visit.form.get("body", "").replace("\r\n", "\n"),
        visit.form.get("note", "").strip()[:300],
        based_on=visit.number("based_on") if based_on else None,
    )
    return redirect("/guidelines")


PAGES = (
    Page("/guidelines", show, "reviewer", link="Guidelines", order=60),
    Page("/guidelines/edit", edit, "adjudicator"),
    Page("/guidelines/edit", save, "adjudicator", "POST"),
)
