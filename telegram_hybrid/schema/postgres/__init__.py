"""PostgreSQL: tables, their migrations, and the statements that the repositories run."""
