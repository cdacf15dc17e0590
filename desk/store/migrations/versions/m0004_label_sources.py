"""Where the label comes from that a task asks about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of tasks that are here nobody knows it."""
    op.add_column("tasks", sa.Column("given_source", sa.Text()))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("tasks", "given_source")
