"""What a person sees of a message: all of it, or with personal data masked, by their role.

Every function of the service that shows texts passes them through here before they leave it, so
that no page can show more than its person may see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from desk.service.context import Desk
from desk.service.tasks import Task
from desk.store.types import Person
from worker.contract.redact import redact_personal_data


def is_masked(desk: Desk, person: Person) -> bool:
    """Tell whether this person's role sees texts with personal data masked."""
    return person.role in desk.policy.masked_roles


def text_for(desk: Desk, person: Person, text: str) -> str:
    """Return a text as this person may see it, by the rules that prepare redacts by."""
    return redact_personal_data(text)[0] if is_masked(desk, person) else text


def task_for(desk: Desk, person: Person, task: Task) -> Task:
    """Return a task with its text, and those of similar messages, as this person may see them."""
    asked = task.asked
    if asked is not None:
        similar = (replace(each, text=text_for(desk, person, each.text)) for each in asked.similar)
        asked = replace(asked, similar=tuple(similar))
    return replace(task, text=text_for(desk, person, task.text), asked=asked)


def seen_how(desk: Desk, person: Person) -> Mapping[str, Any]:
    """Return what the log adds about how somebody saw a text, where roles differ in that."""
    return {"unmasked": not is_masked(desk, person)} if desk.policy.masked_roles else {}
