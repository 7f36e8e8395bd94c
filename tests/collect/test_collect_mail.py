"""Mails: the text that the writer wrote, threads with turns, attachments, and bounds."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import detect_format
from groundup.collect.readers.mail import mail, mbox
from groundup.collect.readers.mail import parts as mail_parts
from groundup.collect.readers.mail.text import own_text, unwrap_flowed
from groundup.collect.readers.speakers import pseudonym

Read = Callable[..., list[Document | Reject]]
ANN, BOB = pseudonym("Ann Example"), pseudonym("Bob Other")
FROM = "From ann@x.org  Mon Sep 17 00:00:00 2001\n"


def _mail(body: str, *more: str, sender: str = "Ann Example <ann@x.org>") -> str:
    headers = [f"From: {sender}", "To: Bob Other <bob@x.org>", *more]
    if not any(line.startswith("Subject") for line in headers):
        headers.append("Subject: Plans")
    return "\n".join(headers) + "\n\n" + body


def _texts(results: list[Document | Reject]) -> list[str]:
    return [result.text for result in results if isinstance(result, Document)]


def _reasons(results: list[Document | Reject]) -> list[str]:
    return [result.reason for result in results if isinstance(result, Reject)]


@pytest.mark.parametrize(
    ("name", "head", "format"),
    [
        ("1700.M1P2.host:2,S", _mail("Hi"), "eml"),
        ("x.eml", "Subject: a\n\nb", "eml"),
        ("x.emlx", "60\n" + _mail("Hi"), "eml"),
        ("inbox", FROM + _mail("Hi"), "mbox"),
        ("x.eml", FROM + _mail("Hi"), "eml"),
        ("x.eml", f"{FROM}{_mail('Hi')}\n\n{FROM}{_mail('Hi')}", "mbox"),
        (
            "2001.txt",
            "From ann at x.org  Mon Sep 17 00:00:00 2001\nFrom: ann at x.org\n\nHi",
            "mbox",
        ),
        ("x.mht", _mail("Hi"), "mhtml"),
        ("x", "From: <Saved by Blink>\nSnapshot-Content-Location: http://a.org/\n\n", "mhtml"),
        # Neither prose nor front matter is a mail.
        ("x.txt", "From: here to there\n\nA tale.", "text"),
        ("x.txt", "From Monday on, it was warm.\nDate: none\n", "text"),
        ("x.txt", "Title: A post\nDate: 2020-01-01\nSubject: x\n\nText", "text"),
        ("METADATA", "Metadata-Version: 2.1\nName: a\nVersion: 1\n\nText", "text"),
    ],
)
def test_mails_are_known_by_their_headers(name: str, head: str, format: str) -> None:
    assert detect_format(name, head.encode()) == format


@pytest.mark.parametrize(
    ("name", "start", "advice"),
    [("x.msg", b"\xd0\xcf\x11\xe0", "msgconvert"), ("x.pst", b"!BDN", "readpst")],
)
def test_mail_files_of_outlook_are_listed_with_what_to_do(
    read: Read, name: str, start: bytes, advice: str
) -> None:
    (result,) = read("mail", name, start + b"\0" * 60)
    assert isinstance(result, Reject)
    assert result.reason == "unsupported-format" and advice in result.detail


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Yes.\n\nOn Mon, 1 Jan 2001, Bob <b@x.org> wrote:\n> Is Friday fine?\n> Bob", "Yes."),
        ("Yes.\n\nOn Mon, 1 Jan 2001 at 10:00, Bob\n<b@x.org> wrote:\n\n> Is it?", "Yes."),
        # Programs of telephones quote without marks, and some write no date.
        ("Yes.\n\nBob Other <b@x.org> wrote:\n  Is it?\n\n  Bob", "Yes."),
        ("Yes.\n\nBob wrote:\n\nno more.", "Yes.\n\nBob wrote:\n\nno more."),
        ("Hi.\n\nBob <b@x.org> wrote:\n\n[..]\n\n> Is it really fine?\n\nYes.",
         "Hi.\n\nBob <b@x.org> wrote:\n\n[..]\n\n> Is it really fine?\n\nYes."),
        ("Ja.\n\nAm 01.01.2001 um 10:00 schrieb Bob <b@x.org>:\n\nGeht Freitag?", "Ja."),
        ("Oui.\n\nLe 1 janv. 2001 à 10:00, Bob a écrit :\n> Vendredi ?", "Oui."),
        ("Yes.\n\n-----Original Message-----\nFrom: Bob\nSent: Monday\nSubject: x\n\nFine?",
         "Yes."),
        ("Ja.\n\nVon: Bob\nGesendet: Montag\nAn: Ann\nBetreff: x\n\nGeht es?", "Ja."),
        # A short quote stays above its answer, a long one does not.
        ("Bob wrote:\n> Hello,\n>\n> is Friday really fine?\n\nYes.",
         "> is Friday really fine?\n\nYes."),
        ("Bob wrote:\n" + "> A long line of a quote that is long.\n" * 9 + "\nYes.", "Yes."),
        ("Yes.\n-- \nAnn\nExample Inc.", "Yes."),
        ("Yes.\n\nSent from my iPhone", "Yes."),
        ("Yes.\nSent from RediffmailNG on Android", "Yes."),
        ("Yes.\n--------------\n  Yahoo! Answers: Share what you know.", "Yes."),
        ("Yes.\n\nGesendet von meinem iPhone\n\n> Geht es?", "Yes."),
        ("Yes.\n_______________________________________________\nA mailing list\na@x.org\n"
         "https://x.org/mailman/listinfo/a", "Yes."),
        ("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA1\n\nYes.\n- -- \nAnn\n"
         "-----BEGIN PGP SIGNATURE-----\nabc\n-----END PGP SIGNATURE-----", "Yes."),
        ("See below.\nbegin 644 a.bin\n#0V%T\n`\nend\nBye.", "See below.\nBye."),
        ("See [cid:image001.png@01] the page <https://a.org/b?c=d> now.", "See the page now."),
        ("Received.\n-------\nTime: 3/9/2006 3:50\nPages: 1 - 1\nSent by fax.",
         "Received.\n-------\nTime: 3/9/2006 3:50\nPages: 1 - 1\nSent by fax."),
        ("Yes.\n-------\nAnn\nFax 555 1234", "Yes."),
        # A quoted signature is nothing to answer; what stands above it is.
        ("> Is Friday really fine?\n>\n> Bob Other\n> Institute for Trees, Oslo\n\nYes.",
         "> Is Friday really fine?\n\nYes."),
        ("> Bob Other, Institute for Trees\n> +47 12345678\n\nYes.", "Yes."),
        ("> my number is new\n> bob at x.org\n\nYes.", "Yes."),
        ("In a message dated 3/16/99 7:19:01 PM,\nb@x.org writes:\n\n> Is it?\n\nYes.", "Yes."),
        ("Bob Other [Thu, Nov 20, 2003 at 11:04:31AM +0100]:\n> Is it?\n\nYes.", "Yes."),
        ("On Mon, 1 Jan 2001 at 10:00, Bob quipped:\n> Is it?\n\nYes.", "Yes."),
        ("We met on 1 Jan 2001 at 10:00:\nthere.", "We met on 1 Jan 2001 at 10:00:\nthere."),
        ("Bob Other <b@x.org> writes:\n\nHi,\n\n> Is it fine?\n\nYes.", "Hi,\n\nYes."),
        ("He writes:\n\nnothing.", "He writes:\n\nnothing."),
        ("Yes,&nbsp;fine.\n\n========", "Yes, fine."),
        # As archives of lists write mails.
        ("Status: RO\n\nYes.", "Yes."),
        ("Status: good, all of it.\n\nYes.", "Status: good, all of it.\n\nYes."),
        ("Yes.\n-------------- next part --------------\nA non-text attachment was scrubbed...\n"
         "Name: x\nUrl : http://x.org/a.bin", "Yes."),
        ("ann at x.org<mailto:ann at x.org>, <bob at x.org>.", "ann at x.org, <bob@x.org>."),
        ("    [ https://issues.example.org/browse/A-1 ]\n\nAnn commented.", "Ann commented."),
        ("He said: nothing.\n\nFrom: where?\nNobody knew.",
         "He said: nothing.\n\nFrom: where?\nNobody knew."),
    ],
)  # fmt: skip
def test_quotes_signatures_and_footers_are_cut(text: str, own: str) -> None:
    assert own_text(text) == own


def test_a_forwarded_mail_stays_without_its_headers() -> None:
    forwarded = (
        "FYI\n\n---------- Forwarded message ----------\nFrom: Bob <b@x.org>\nDate: Monday\n"
    )
    assert own_text(f"{forwarded}Subject: x\n\nThe news.") == "FYI\n\nThe news."
    original = "-----Original Message-----\nFrom: Bob\nSent: Monday\nSubject: x\n\nThe news."
    assert own_text(f"FYI\n\n{original}", is_forward=True) == "FYI\n\nThe news."
    assert own_text("> The news.", is_forward=True) == "The news."
    signed = f"FYI\n-- \nBob\n\n{original}\n-- \nAnn\n\n{original}\n-----\nDisclaimer: none."
    assert own_text(signed, is_forward=True) == "FYI\n\nThe news.\n\nThe news."


def test_flowed_lines_become_paragraphs() -> None:
    assert unwrap_flowed("One \ntwo\n> a \n> b\n-- \nx", False) == "One two\n> a b\n-- \nx"
    assert unwrap_flowed("Donau \ndampf", True) == "Donaudampf"


def test_a_mail_is_its_text_under_its_subject_in_the_group_of_its_thread(read: Read) -> None:
    own, first = "Message-ID: <2@x>", "References: <1@x>\n <1b@x>"
    (answer,) = read("mail", "a.eml", _mail("Hi Bob,\n\nfine.\n\nAnn", own, first))
    assert answer == Document(f"Plans\n\nHi {BOB},\n\nfine.\n\n{ANN}", 0, "1@x")
    (named,) = read("mail", "a.eml", _mail("Fine.\n\nAnn", own), speakers="names")
    assert named == Document("Plans\n\nFine.\n\nAnn", 0, "2@x")


def test_names_are_hidden_where_people_are_greeted_and_where_they_sign(read: Read) -> None:
    body = "Dear Bob,\n\nask Ann Example.\n\nRegards,\nAnn Example\nHead of X\n+49 89 1234567"
    assert _texts(read("mail", "a.eml", _mail(body))) == [
        f"Plans\n\nDear {BOB},\n\nask {ANN}.\n\nRegards,\n{ANN}"
    ]
    swapped = _mail("Fine.\n\nAnn", sender='"Example, Ann" <ann@x.org>')
    assert _texts(read("mail", "a.eml", swapped)) == [f"Plans\n\nFine.\n\n{ANN}"]


def test_names_below_a_mail_are_hidden_with_titles_and_as_people_shorten_them(read: Read) -> None:
    bradley = pseudonym("Bradley Clark")
    for name in (
        "Brad Clark",
        "Dr. Bradley Clark, PhD",
        "Bradley J. Clark",
        "Bradley Hraban Clark",
    ):
        mail = _mail(f"Fine.\n\n{name}", sender="Bradley Clark <b@x.org>")
        assert _texts(read("mail", "a.eml", mail)) == [f"Plans\n\nFine.\n\n{bradley}"]


def test_mails_of_a_thread_are_one_conversation_in_the_order_of_their_dates(read: Read) -> None:
    mails = [
        _mail("Fine.", "Message-ID: <2@x>", "In-Reply-To: <1@x>", "Subject: Re: Plans of us",
              "Date: Tue, 2 Jan 2001 1:00 +0000", sender="Bob Other <bob@x.org>"),
        _mail("Other things.", "Message-ID: <9@x>", "Subject: Something else"),
        _mail("Is it?\n\n>From here on.", "Message-ID: <1@x>", "Subject: Plans of us",
              "Date: Mon, 1 Jan 2001 1:00 +0000"),
        # Its reference was lost; the subject joins it.
        _mail("Thanks.", "Subject: AW: [list] Plans of us", "Message-ID: <3@x>",
              "Date: Wed, 3 Jan 2001 1:00 +0000"),
    ]  # fmt: skip
    results = read("mail", "inbox", "\n\n".join(FROM + text for text in mails))
    talk = f"Plans of us\n\n{ANN}: Is it?\n\nFrom here on.\n{BOB}: Fine.\n{ANN}: Thanks."
    assert _texts(results) == [talk, "Something else\n\nOther things."]
    thread = results[0]
    assert isinstance(thread, Document)
    assert (thread.record, thread.group) == (0, "1@x")
    assert [turn["role"] for turn in thread.turns or ()] == [ANN.lower(), BOB.lower(), ANN.lower()]


def test_the_group_of_a_thread_is_the_mail_that_began_it(read: Read) -> None:
    """An answer to an answer names its parent only, and its date may be wrong."""
    mails = [
        _mail("Yes.", "Message-ID: <3@x>", "In-Reply-To: <2@x>",
              "Date: Mon, 1 Jan 1990 1:00 +0000"),
        _mail("Is it?", "Message-ID: <1@x>", "Date: Mon, 1 Jan 2001 1:00 +0000"),
        _mail("Is what?", "Message-ID: <2@x>", "In-Reply-To: <1@x>",
              "Date: Mon, 1 Jan 2001 2:00 +0000"),
    ]  # fmt: skip
    (thread,) = read("mail", "inbox", "\n\n".join(FROM + text for text in mails))
    assert isinstance(thread, Document) and thread.group == "1@x"


def test_a_line_that_ends_a_part_badly_is_no_text(read: Read) -> None:
    text = _multipart("mixed", PLAIN, "\n").replace("--b--", "--b-")
    assert _texts(read("mail", "a.eml", text)) == [
        "Plans\n\nThe text of a mail, which is long enough."
    ]


def test_a_mail_that_stands_twice_in_a_mailbox_is_listed_once(read: Read) -> None:
    text = FROM + _mail("Hi all.", "Message-ID: <1@x>") + "\n\n"
    assert _reasons(read("mail", "inbox", text * 2)) == ["duplicate-mail"]
    unnamed = FROM + _mail("Hi all.") + "\n\n"
    later = FROM + _mail("Hi all.", "Date: Mon, 1 Jan 2001 1:00 +0000") + "\n\n"
    results = read("mail", "inbox", text + unnamed + later * 2)
    assert _reasons(results) == ["duplicate-mail"] * 2 and len(_texts(results)) == 2


def test_a_long_thread_is_cut_into_documents_of_one_group(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mbox, "MAX_THREAD", 20)
    mails = [_mail(f"Mail number {n}.", f"Message-ID: <{n}@x>", "References: <0@x>")
             for n in range(4)]  # fmt: skip
    results = read("mail", "inbox", "\n\n".join(FROM + text for text in mails))
    assert [result.record for result in results] == [0, 1, 2, 3]
    assert {result.group for result in results if isinstance(result, Document)} == {"0@x"}


def _multipart(kind: str, *parts: str) -> str:
    body = "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"
    return _mail(body, f"Content-Type: multipart/{kind}; boundary=b", "Message-ID: <1@x>")


PLAIN = "Content-Type: text/plain\n\nThe text of a mail, which is long enough."
PAGE = "Content-Type: text/html\n\n<p>The <b>page</b> of a mail.<ul><li>One<li>Two</ul>"


def test_parts_that_a_server_named_belong_to_the_body(read: Read) -> None:
    named = "Content-Type: text/html; name=ATT00001.htm\nContent-Disposition: attachment"
    text = _multipart("mixed", PLAIN, f"{named}\n\n<p>And the rest.</p>")
    body = "Plans\n\nThe text of a mail, which is long enough.\n\nAnd the rest."
    assert _texts(read("mail", "a.eml", text)) == [body]


def test_mails_of_a_digest_are_mails(read: Read) -> None:
    mails = [f"Message: {n}\nDate: Mon, {n} Jan 2001 1:00 +0000\nFrom: Ann Example <ann@x.org>\n"
             f"Subject: [list] Plan {n}\nContent-Type: text/plain; charset=iso-8859-1\n\n"
             f"Très bien {n}.\n" for n in (1, 2)]  # fmt: skip
    line = "-" * 30 + "\n\n"
    end = f"Subject: Digest Footer\n\n____\nlist@x.org\n\n{line}End of list Digest\n****\n"
    masthead = (
        "Send list mailing list submissions to\n\tlist@x.org\n\nToday's Topics:\n\n   1. Plan\n\n"
    )
    body = f"{masthead}{'-' * 70}\n\n" + f"\n{line}".join([*mails, end])
    results = read("mail", "a.eml", _mail(body, "Content-Type: text/plain; charset=utf-8"))
    assert _texts(results) == ["Plan 1\n\nTrès bien 1.", "Plan 2\n\nTrès bien 2."]
    assert _reasons(results) == ["empty"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((PLAIN, PAGE), "The text of a mail, which is long enough."),
        (
            ("Content-Type: text/plain\n\nSee HTML.", PAGE),
            "The page of a mail.\n\n- One\n- Two",
        ),
        ((PAGE,), "The page of a mail.\n\n- One\n- Two"),
        (("Content-Type: text/html\n\nYes.<blockquote type=cite>Is it?</blockquote>",), "Yes."),
        (("Content-Type: text/plain; charset=koi8-x\n\nEs ist schön.",), "Es ist schön."),
        (("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nWWVzLg",), "Yes."),
    ],
)
def test_the_best_part_of_a_mail_is_its_text(read: Read, parts: tuple[str, ...], text: str) -> None:
    results = read("mail", "a.eml", _multipart("alternative", *parts))
    assert _texts(results) == [f"Plans\n\n{text}"]


def test_attachments_are_read_by_their_readers_or_listed(read: Read) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("note.txt", "A packed note.")
    zipped = base64.b64encode(packed.getvalue()).decode()
    named = "Content-Disposition: attachment; filename"
    parts = (
        PLAIN,
        f"{named}=note.txt\n\nA note.",
        f"{named}=a.zip\nContent-Transfer-Encoding: base64\n\n{zipped}",
        "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBOR",
        "Content-Type: application/ms-tnef; name=winmail.dat\n\nx",
        "Content-Type: message/rfc822\n\n" + _mail("A mail in a mail."),
        f"{named}=run.js\n\nvar x = 1;",
    )
    results = read("mail", "a.eml", _multipart("mixed", *parts))
    body = "Plans\n\nThe text of a mail, which is long enough."
    assert sorted(text.strip() for text in _texts(results)) == sorted(
        [body, "A note.", "A packed note.", "Plans\n\nA mail in a mail."]
    )
    assert sorted(_reasons(results)) == ["unsupported-format", "unsupported-format", "wrong-kind"]
    assert {result.group for result in results if isinstance(result, Document)} == {"1@x"}
    assert [result.record for result in results] == list(range(7))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_multipart("report; report-type=delivery-status", PLAIN), "bounce"),
        (_mail("No such user.", sender="Mail Delivery System <MAILER-DAEMON@x.org>"), "bounce"),
        (_multipart("encrypted", "Content-Type: application/octet-stream\n\nx"), "encrypted"),
        (_mail("-----BEGIN PGP MESSAGE-----\n\nabc\n-----END PGP MESSAGE-----"), "encrypted"),
        (_mail("> only a quote\n", "Subject: Re: Plans"), "empty"),
        (_mail("\n", "Subject: (no subject)"), "empty"),
        (
            _mail(
                "-------------- next part --------------\nAn HTML attachment was scrubbed...\n"
                "URL: <http://x.org/a.htm>\n"
            ),
            "empty",
        ),
    ],
)
def test_a_mail_without_a_text_is_listed_with_the_reason(
    read: Read, text: str, reason: str
) -> None:
    assert _reasons(read("mail", "a.eml", text)) == [reason]


def test_a_mail_that_says_it_in_its_subject_is_its_subject(read: Read) -> None:
    results = read("mail", "a.eml", _mail("-- \nAnn\n", "Subject: [list] Lunch at one?"))
    assert _texts(results) == ["Lunch at one?"]


def test_a_multipart_whose_header_names_another_boundary_is_cut_at_its_own(read: Read) -> None:
    text = _multipart("mixed", PLAIN).replace("boundary=b", "boundary=c")
    assert _texts(read("mail", "a.eml", text)) == [
        "Plans\n\nThe text of a mail, which is long enough."
    ]


def test_headers_are_decoded_whatever_they_hold(read: Read) -> None:
    subject = "Subject: Re: =?utf-8?q?sch=C3=B6n?= =?koi8-x?b?w6Q?="
    assert _texts(read("mail", "a.eml", _mail("Hi.", subject)))[0].startswith("schön")
    raw = _mail("Hi.", "Subject: \xfcber").encode("latin-1")
    assert _texts(read("mail", "a.eml", raw)) == ["über\n\nHi."]


def test_a_line_among_the_headers_that_is_none_does_not_end_them(read: Read) -> None:
    broken = _mail("Fine.").replace("Subject:", "quite Received: x\nDate: none\nSubject:")
    assert _texts(read("mail", "a.eml", broken)) == ["Plans\n\nFine."]
    unset = "Subject: Plans\nHi Bob,\nTo: and fro.\nFine.\n"
    assert _texts(read("mail", "a.eml", unset)) == ["Plans\n\nHi Bob,\nTo: and fro.\nFine."]


@pytest.mark.parametrize(
    ("subject", "title"),
    [
        ("[list] Re: [Fwd: [other] Plans]", "Plans"),
        ("[Plans] for May", "for May"),
        ("(no subject)", ""),
        ("None", ""),
    ],
)
def test_a_title_is_a_subject_without_what_programs_add(
    read: Read, subject: str, title: str
) -> None:
    (text,) = _texts(read("mail", "a.eml", _mail("Fine.", f"Subject: {subject}")))
    assert text == f"{title}\n\nFine.".lstrip()


def test_mails_in_utf_16_are_read(read: Read) -> None:
    assert _texts(read("mail", "a.eml", _mail("Hi.").encode("utf-16"))) == ["Plans\n\nHi."]


def test_parts_and_headers_without_end_cost_the_mail_only(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_parts, "MAX_PARTS", 50)
    flood = _multipart("mixed", *[PLAIN] * 60)
    long = _mail("Hi.", "Content-Type: text/plain" + ";" * 300_000)
    texts = (flood, long, _mail("Whole."))
    results = read("mail", "inbox", "\n\n".join(FROM + text for text in texts))
    assert _reasons(results) == ["too-large"]
    assert _texts(results) == ["Plans\n\nHi.", "Plans\n\nWhole."]


def test_parts_that_nest_without_end_cost_the_mail_only(read: Read) -> None:
    deep = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(3000))
    results = read("mail", "inbox", f"{FROM}From: a@x.org\n{deep}\n\n{FROM}{_mail('Whole.')}")
    assert _reasons(results) == ["nesting"] and _texts(results) == ["Plans\n\nWhole."]


def test_a_text_is_read_up_to_bytes_that_no_text_holds(read: Read) -> None:
    results = read("mail", "a.eml", _mail("The text.\n\x00\x01\x02 more\n"))
    assert _texts(results) == ["Plans\n\nThe text."] and _reasons(results) == ["damaged"]


def test_a_mail_that_is_too_long_is_listed_and_the_next_is_read(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mbox, "MAX_RECORD", 200)
    monkeypatch.setattr(mail, "MAX_RECORD", 200)
    results = read("mail", "inbox", f"{FROM}{_mail('x' * 300)}\n\n{FROM}{_mail('Whole.')}")
    assert _reasons(results) == ["too-large"] and _texts(results) == ["Plans\n\nWhole."]


def test_a_saved_page_is_read_as_a_web_page(read: Read) -> None:
    prose = "<p>" + "It was late in the year, and nobody had seen the harvest come in. " * 9
    page = f"Content-Type: text/html\n\n<html><body><nav>Home</nav><article>{prose}</article>"
    text = _multipart("related", page, "Content-Type: image/png\n\nx").replace(
        "To:", "Snapshot-Content-Location: http://www.a.org/b\nTo:"
    )
    (result,) = read("web", "x.mhtml", text)
    assert isinstance(result, Document) and result.group == "a.org"
    assert result.text.startswith("It was late") and "Home" not in result.text


def test_bodies_that_an_archive_stored_as_sent(read: Read) -> None:
    """Without the headers that say how a body is encoded, its form does."""
    encoded = base64.encodebytes(b"It rained all day, and the river rose over the meadow.\n" * 3)
    assert _texts(read("mail", "x.eml", _mail(encoded.decode())))[0].count("It rained") == 3
    full = "It rained all day, and the river rose over the meadow and the old stone b="
    full += "\nridge =3D gone."
    assert "stone bridge = gone." in _texts(read("mail", "x.eml", _mail(full)))[0]
    inner = "--=_x\nContent-Type: text/plain\n\nIt rained.\n\n--=_x--\n"
    assert _texts(read("mail", "x.eml", _mail(inner))) == ["Plans\n\nIt rained."]


def test_marks_of_archives_and_programs_are_no_text(read: Read) -> None:
    """An archive that took a text out leaves a line; programs say that there is no subject."""
    skipped = "Skipped content of type multipart/alternative\n"
    assert _reasons(read("mail", "x.eml", _mail(skipped))) == ["empty"]
    assert _texts(read("mail", "x.eml", _mail("Hi", "Subject: No subject"))) == ["Hi"]
    assert _reasons(read("mail", "x.eml", _mail("", "Subject: No subject"))) == ["empty"]
    quote = "Excerpts from mail: 19-Dec-99 [List]a tale by Ann@x.org\n> It rained.\n"
    assert own_text("Not to worry.\n\n" + quote) == "Not to worry."


def test_a_quoted_line_that_was_broken_stays_a_quote() -> None:
    """Programs break lines that became too long with their mark."""
    lines = ["> It rained all day, and the river rose over the meadow and", "the", "> bridge."]
    assert own_text("\n".join([*lines, "", "Did it?"])).startswith("> It rained")


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Fine.\n\n----\nThe Tao is like a glob.\n[ann@x.org]", "Fine."),
        ("Fine.\n\n---\n$ ls\n---\n\nOne's enough.", "Fine.\n\n---\n$ ls\n---\n\nOne's enough."),
        ("Fine.\n\n   ____  ____  __\n  |____ |____ |  |", "Fine."),
        ("Fine.\n\nAnn Example <ann@x.org> wrote ..\n> Is it?", "Fine."),
        ("Fine.\n\n-----\nSent via Bell Mobility's Text Messaging service.\n", "Fine."),
        (
            "To view this email as a web page, go here: https://a.org/x\n\nNews.\n\n"
            "If you'd rather not receive future emails, unsubscribe here: https://a.org/"
            + "x"
            * 2000,
            "News.",
        ),
        ("Fine.\n\n2005/8/15, Ann Example :\n> Is it?", "Fine."),
        (
            "--- Forwarded mail from Ann <ann@x.org>\n\n>From a.b Sun Jul 19 22:58:11 1992\n"
            "Date: Fri, 17 Jul 92 11:34:00\nFrom: Ann <ann@x.org>\nSubject: Fonts\n\nThey are new.",
            "They are new.",
        ),
    ],
)
def test_what_programs_of_old_lists_write(text: str, own: str) -> None:
    """Short rules and drawn letters set off signatures; attributions have no verb, or no colon."""
    assert own_text(text) == own


@pytest.mark.parametrize("marks", [" ", "- ", "|/", "\t", "_ ", "="])
def test_a_long_line_is_read_in_linear_time(marks: str) -> None:
    """Protects: patterns that try every place of a last line took hours for a megabyte."""
    assert "end" in own_text(f"Hello,\n\n{marks * 200_000}end")
