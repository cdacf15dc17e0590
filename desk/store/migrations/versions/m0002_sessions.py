"""Who is signed in, and the passwords of local users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "sessions",
        sa.Column("token_sha256", sa.Text(), primary_key=True),
        sa.Column("person_id", _ID, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_sessions_person_id", "sessions", ["person_id"])
    op.create_index("ix_sessions_seen_ms", "sessions", ["seen_ms"])
    op.create_table(
        "passwords",
        sa.Column(
            "person_id", _ID, sa.ForeignKey("people.id"), primary_key=True, autoincrement=False
        ),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Remove them: everybody signs in anew, and local users need new passwords."""
    op.drop_table("passwords")
    op.drop_table("sessions")
