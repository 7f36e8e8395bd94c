"""MediaWiki dumps and wikitext → readable text."""
