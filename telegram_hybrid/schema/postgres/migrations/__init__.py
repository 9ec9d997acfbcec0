"""Alembic's folder: the revisions and the environment that runs them."""
