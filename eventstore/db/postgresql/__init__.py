"""PostgreSQL: connections of ours and of callers, prepared statements, what errors mean."""
