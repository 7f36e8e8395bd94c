"""Best checkpoint → a folder that other programs load, given out only after it was compared with
our own model.
"""
