"""The pages of the explorer: functions from a query to a document."""
