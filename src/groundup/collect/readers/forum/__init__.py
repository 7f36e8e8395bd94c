"""Forums: dumps and exports of boards, as threads."""
