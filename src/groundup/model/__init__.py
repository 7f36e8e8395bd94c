"""The transformer: its sizes, weights on disk, loss, scores and sampling."""
