"""What a database's errors mean for whoever asked: try again, or mend the database."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from desk.errors import DatabaseAway, DatabaseRefused

# What PostgreSQL calls: connection failures (08), a standby (25006), a deadlock (40), too many
# connections, a full disk (53), being shut down, starting, ending a statement (57).
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY = ("08", "25006", "40", "53", "57")
_REFUSED = {"28P01", "28000", "3D000", "42P01", "42501"}


def sqlstate(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error of pg8000's, "" where it has none."""
    if error is not None and error.args and isinstance(error.args[0], dict):
        return str(error.args[0].get("C", ""))
    return ""


def translate(error: DBAPIError) -> Exception:
    """Return what the caller is told: DatabaseAway, DatabaseRefused, or the error itself. The
    driver's words may hold values, so they are left out, but for those that cannot."""
    original = error.orig
    if type(original).__module__ == "sqlite3":
        return _of_sqlite(str(original)) or error
    code = sqlstate(original)
    if code.startswith(_AWAY):
        return DatabaseAway(f"the database cannot do it now (SQLSTATE {code})")
    if code in _REFUSED:
        return DatabaseRefused(
            f"the database refuses (SQLSTATE {code}): look at database.url, and run "
            "`clerk-desk migrate`"
        )
    if error.connection_invalidated or type(original).__name__ == "InterfaceError":
        return DatabaseAway("the database ended the connection")
    return error


def _of_sqlite(words: str) -> Exception | None:
    if "locked" in words or "busy" in words:
        return DatabaseAway("the database is busy with another transaction")
    if words == "database or disk is full":
        return DatabaseAway("the database's disk is full")
    if words.startswith(("no such table", "unable to open", "file is not a database")):
        return DatabaseRefused(f"{words}: has `clerk-desk migrate` been run?")
    return None
