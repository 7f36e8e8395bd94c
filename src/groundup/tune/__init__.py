"""Best checkpoint and conversations → a model that answers in form and stops."""
