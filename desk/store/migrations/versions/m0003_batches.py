"""Batches of tasks, advice and proposals: what the trainer asks people, and what it is told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables; items and facets of before belong to no batch."""
    op.create_table(
        "batches",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("key", sa.Text(), nullable=False, unique=True),
        sa.Column("dataset", sa.Text()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("begun_ms", sa.BigInteger(), nullable=False),
        sa.Column("loaded_ms", sa.BigInteger()),
        sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
    )
    op.add_column("facets", sa.Column("batch_id", _ID))
    op.add_column("items", sa.Column("batch_id", _ID))
    _tasks()
    _advice()
    op.create_table(
        "proposals",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("proposal_id", sa.Text(), nullable=False, unique=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("loaded_ms", sa.BigInteger(), nullable=False),
        sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
        sa.Column("publish", sa.Boolean()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", _ID, sa.ForeignKey("people.id")),
        sa.Column("decided_ms", sa.BigInteger()),
    )


def _tasks() -> None:
    op.create_table(
        "tasks",
        _key("item_id", "items.id"),
        sa.Column("batch_id", _ID, sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("given_label", sa.Text()),
        sa.Column("suggested_label", sa.Text()),
        sa.Column("confidence", sa.Float()),
        sa.Column("codes", sa.JSON(), nullable=False),
        sa.Column("guideline", sa.Text()),
    )
    op.create_index("ix_tasks_batch_id", "tasks", ["batch_id"])
    op.create_table(
        "similar",
        _key("item_id", "items.id"),
        sa.Column("place", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text()),
        sa.Column("message_sha256", sa.Text(), nullable=False),
    )
    op.create_index("ix_similar_message_id", "similar", ["message_id"])
    op.create_index("ix_similar_message_sha256", "similar", ["message_sha256"])


def _advice() -> None:
    op.create_table(
        "advice",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("digest", sa.Text(), nullable=False, unique=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("loaded_ms", sa.BigInteger(), nullable=False),
        sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
    )
    op.create_table(
        "advice_messages",
        _key("advice_id", "advice.id"),
        sa.Column("finding", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("place", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("message_id", sa.Text()),
        sa.Column("message_sha256", sa.Text()),
        sa.Column("label", sa.Text()),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text()),
    )
    op.create_index("ix_advice_messages_message_id", "advice_messages", ["message_id"])
    op.create_index("ix_advice_messages_message_sha256", "advice_messages", ["message_sha256"])


def _key(name: str, of: str) -> sa.Column[int]:
    """Return a column of a key that another table counts."""
    return sa.Column(name, _ID, sa.ForeignKey(of), primary_key=True, autoincrement=False)


def downgrade() -> None:
    """Remove them: batches have to be loaded anew. Refused while there are tasks, which would
    else come out as messages from Kafka."""
    if op.get_bind().execute(sa.text("SELECT 1 FROM tasks LIMIT 1")).first() is not None:
        raise RuntimeError("there are tasks in this database: restore a backup of before instead")
    for table in ("proposals", "advice_messages", "advice", "similar", "tasks", "batches"):
        op.drop_table(table)
    for table in ("items", "facets"):
        op.drop_column(table, "batch_id")
