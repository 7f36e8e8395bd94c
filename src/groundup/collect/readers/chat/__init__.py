"""Conversations: exports of chat programs, logs, transcripts and JSON of messages."""
