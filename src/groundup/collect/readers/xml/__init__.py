"""Documents in XML: DocBook, JATS, TEI, FictionBook, Confluence, Notion."""
