"""Files in and out, for owners: uploads, exports, advice about the labels, the next adapter."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime

from starlette.responses import Response

from desk.errors import Refused
from desk.service import circle, loading, upkeep, uploads
from desk.web.visit import UNKNOWN_ACTION, Page, Visit, number, redirect
from worker.contract.exchange import CHANGES


def show_load(visit: Visit) -> Response:
    """Show the upload form, and how far earlier uploads are."""
    return visit.page("load.html", uploads=loading.newest(visit.desk), at_once=circle.AT_ONCE)


def load_file(visit: Visit) -> Response:
    """Load the file, whatever it holds, and go to the page that shows it."""
    upload = visit.upload
    if upload is None or not upload.content:
        raise Refused("Choose a file first.")
    desk, owner = visit.desk, visit.who
    content, name = upload.content, upload.name[:100] or "File"
    kind = uploads.kind_of(content, name)
    if kind == "advice":
        loaded, _ = circle.load_advice(desk, uploads.text_of(content, name), name, owner)
        return redirect("/advice", advice=str(loaded))
    if kind == "proposal":
        id_, _ = circle.load_proposal(desk, uploads.text_of(content, name), name, owner)
        return redirect("/proposals", proposal=id_)
    tasks = loading.read_upload(desk, content, name)
    # While one user labels a file, nothing runs in the background.
    if len(tasks) > circle.AT_ONCE and visit.web.options.batch is None:
        loading.load_later(desk, content, name, len(tasks), owner)
        return redirect("/load")
    circle.load_tasks(desk, tasks, owner)
    return redirect("/")


def show_export(visit: Visit) -> Response:
    """Show the export form."""
    names = dict.fromkeys(each.name for each in circle.all_progress(visit.desk))
    return visit.page("export.html", inbox=upkeep.INBOX, batches=list(names))


def send_export(visit: Visit) -> Response:
    """Send the files of ``clerk-desk export`` as a ZIP archive."""
    files, _ = upkeep.export_files(
        visit.desk,
        project=visit.form.get("project", upkeep.INBOX),
        by_message_id=visit.form.get("ids") != "result",
        by=visit.who,
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    day = datetime.fromtimestamp(visit.desk.clock() / 1000, UTC).strftime("%Y-%m-%d")
    headers = {"Content-Disposition": f'attachment; filename="decided-{day}.zip"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)


def show_advice(visit: Visit) -> Response:
    """Show the newest advice, or the one in the address."""
    everything = circle.all_advice(visit.desk)
    wanted = number(visit.query.get("advice", ""))
    chosen = next((each for each in everything if each.id == wanted), None)
    given = chosen or (everything[0] if everything else None)
    others = [each for each in everything if each is not given]
    return visit.page("advice.html", given=given, others=others)


def show_messages(visit: Visit) -> Response:
    """Show the messages behind a finding."""
    advice_id, place = (number(visit.query.get(name, "")) for name in ("advice", "finding"))
    given, finding, messages = circle.messages(visit.desk, visit.who, advice_id, place - 1)
    return visit.page(
        "advice_messages.html",
        given=given,
        finding=finding,
        place=place,
        messages=messages,
        here=sum(each.text is not None for each in messages),
        several=len({each.part for each in messages}) > 1,
    )


def ask(visit: Visit) -> Response:
    """Turn the messages of a finding into a batch, and go to its queue."""
    if visit.form.get("action") != "ask":
        raise Refused(UNKNOWN_ACTION)
    advice_id, place = visit.number("advice"), visit.number("finding")
    asked = circle.ask(visit.desk, visit.who, advice_id, place - 1)
    return redirect("/review", batch=str(asked.batches[0]))


def show_proposals(visit: Visit) -> Response:
    """Show the proposal in the address, or the newest that waits for an answer, or the newest."""
    everything = circle.all_proposals(visit.desk)
    wanted = visit.query.get("proposal", "")
    ordered = sorted(everything, key=lambda each: each.decision is not None)
    chosen = next((each for each in everything if each.proposal.id == wanted), None)
    shown = chosen or (ordered[0] if ordered else None)
    figures = shown.proposal.figures if shown is not None else ()
    bounds = [abs(x) for each in figures for x in (each.low, each.high, each.difference) if x]
    return visit.page(
        "proposals.html",
        shown=shown,
        others=[each for each in everything if each is not shown],
        widest=max(bounds, default=0.01),
        changes=CHANGES,
    )


def decide_proposal(visit: Visit) -> Response:
    """Store the owner's answer."""
    action = visit.form.get("action", "")
    if action not in {"yes", "no"}:
        raise Refused(UNKNOWN_ACTION)
    proposal_id = visit.form.get("proposal", "")
    circle.decide_proposal(
        visit.desk,
        proposal_id,
        publish=action == "yes",
        reason=visit.form.get("note", "").strip(),
        person=visit.who,
    )
    return redirect("/proposals", proposal=proposal_id)


PAGES = (
    Page("/load", show_load, "owner"),
    Page("/load", load_file, "owner", "POST", takes_file=True),
    Page("/export", show_export, "owner"),
    Page("/export", send_export, "owner", "POST"),
    Page("/advice", show_advice, "owner", link="Advice", order=76),
    Page("/advice/messages", show_messages, "owner"),
    Page("/advice/messages", ask, "owner", "POST"),
    Page("/proposals", show_proposals, "owner", link="Proposals", order=77),
    Page("/proposals", decide_proposal, "owner", "POST"),
)
