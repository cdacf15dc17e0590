"""The desk's database: SQLite or PostgreSQL. Nothing outside knows SQLAlchemy."""
