"""One row of an export on its way to a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.dataset.examples import Example


@dataclass(frozen=True, slots=True)
class Row:
    """A message as one file gave it. ``id`` is empty until one is made from the content;
    ``where`` is file and line (or row), for error messages; ``given`` says that the row comes
    from the hold-out file that the user brought."""

    id: str
    message: str
    label: str
    sublabel: str | None
    where: str
    given: bool = False

    @property
    def key(self) -> str:
        """What two copies share: ``Example.key`` of a message that is normalized already."""
        return self.message.casefold()

    @property
    def example(self) -> Example:
        """The row as the dataset folder holds it."""
        return Example(self.id, self.message, self.label, self.sublabel)
