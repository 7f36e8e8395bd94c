"""One reader for each format: bytes to documents. `registry` is the table of them.

    chat/       exports of chat programs, logs, transcripts, conversations in JSON
    mail/       mails, mailboxes, saved pages
    forum/      dumps and exports of boards, as threads
    records/    rows: JSON, CSV, YAML, Parquet, Arrow, SQL, SQLite
    web/        pages, archives of them, feeds
    wiki/       MediaWiki dumps and wikitext
    markup/     Markdown, reStructuredText, AsciiDoc, LaTeX, Org, man pages, notebooks
    office/     office files, PDF, scans
    xml/        DocBook, JATS, TEI, FictionBook, Confluence, Notion

Plain text, books, EPUB and source code are a module each; `blocks` puts paragraphs, lists and
tables together for all who read documents.
"""
