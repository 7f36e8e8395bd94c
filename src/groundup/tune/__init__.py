"""Best checkpoint and conversations → a model that answers in chat form and stops."""
