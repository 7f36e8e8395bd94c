"""Arrays and sorts that do not fit in memory."""
