"""What the writer of a mail wrote: without quotes, signatures and footers of lists.

A quote repeats an earlier mail, so it is cut. Where an answer stands below a short one, the quote
is what the answer is about, and stays:

    On Monday Ann Example wrote:            > Is Friday fine?
    > Hello all,
    > here is the plan.              →      Yes.
    >
    > Is Friday fine?

    Yes.
    --
    Bob, Example Inc.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Lines that begin what was forwarded or quoted below them, in the languages of the common programs.
_ORIGINAL = re.compile(
    r"\s*[-_]{2,}\s*(?:original(?:e?[- ])?(?:message|nachricht|melding|meddelande)|ursprüngliche"
    r" nachricht|ursprungligt meddelande|message d['’]origine|mensaje original|messaggio originale"
    r"|mensagem original|oorspronkelijke? bericht|oprindelig meddelelse|opprinnelig melding"
    r"|alkuperäinen viesti|wiadomość oryginalna|oryginalna wiadomość|исходное сообщение"
    r"|původní (?:zpráva|e-?mail)|eredeti üzenet|mesaj original|orijinal (?:mesaj|ileti)"
    r"|原始邮件|原始郵件|元のメッセージ|원본 메[일시]지?)\b.{0,80}",
    re.IGNORECASE,
)
_FORWARDED = re.compile(
    r"\s*(?:begin forwarded message\s*[:：]|inizio messaggio inoltrato\s*:|inici?o del mensaje"
    r" reenviado\s*:|início da mensagem (?:reencaminhada|encaminhada)\s*:|begin doorgestuurd"
    r" bericht\s*:|anfang der weitergeleiteten nachricht\s*:"
    r"|début du message (?:réexpédié|transféré)\s*:"
    r"|[-_]{2,}\s*(?:forwarded (?:message|mail|by)|weitergeleitete nachricht|message transféré"
    r"|mensaje reenviado|messaggio inoltrato|mensagem encaminhada|doorgestuurd bericht"
    r"|vidarebefordrat meddelande|videresendt (?:meddelelse|melding)|пересланное сообщение"
    r"|przekazana wiadomość|přeposlaná zpráva|转发的?邮件|轉寄的?郵件).{0,120})\s*",
    re.IGNORECASE,
)
# The header lines of a mail that is quoted in full, as programs write them into the text.
_FROM = re.compile(
    r"[*\s]*(?:from|von|de|da|van|från|fra|od|lähettäjä|от|від|发件人|寄件者|差出人|보낸 사람"
    r"|feladó|kimden|de la)\s?[*]*\s?[:：]",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"[*\s]*(?:subject|betreff|objet|asunto|oggetto|assunto|onderwerp|ämne|emne|temat|aihe|тема"
    r"|předmět|tárgy|konu|主题|主旨|件名|제목|subiect|assumpte)\s?[*]*\s?[:：]",
    re.IGNORECASE,
)
_OTHER_HEADER = re.compile(
    r"[*\s]*(?:sent|date|to|cc|reply-to|message-id|importance|attachments?|sent by|gesendet"
    r"|datum|an|kopie|envoyé|à|enviado(?: el)?|fecha|para|inviato|data|a|verzonden|aan|skickat"
    r"|till|sendt|dato|til|kopi|wysłano|do|dw|lähetetty|vastaanottaja|отправлено|дата|кому"
    r"|копия|odesláno|komu|küldve|címzett|gönderme(?: tarihi)?|tarih|kime|发送时间|收件人|抄送"
    r"|日期|送信日時|宛先|보낸 날짜|받는 사람)\s?[*]*\s?[:：]",
    re.IGNORECASE,
)
_VERBS = (
    r"wrote|writes|said|schrieb|a écrit|escribió|ha scritto|scrive|escreveu|schreef|skrev|skrifaði"
    r"|napisał(?:\(a\)|a)?|pisze|kirjoitti|написал(?:\(а\)|а)?|пишет|написав|пише"
    r"|napsal(?:\(a\)|a)?|írta|a scris|(?:şunu )?yazdı|va escriure"
)
# Possessive and bounded: a line is tried once.
_ATTRIBUTION = re.compile(
    rf"(?:.{{0,250}}?(?:\b(?:{_VERBS})(?!\w)|写道|寫道|のメール|書きました|작성|<[^<>\s]+@[^<>\s]+>)"
    r".{0,100}|\s*quoting .{1,100})(?:[:：]|\s\.{2,3}$)(?:\s*\])?\s*"
    r"|\s*excerpts from [^:]{1,80}: .{1,200}",
    re.IGNORECASE,
)
# Above a quote, a line with a year and a time needs no verb: "Ann [Thu, 20 Nov 2003, 11:04]:", nor
# does one that begins with a day: "2005/8/15, Ann:".
_DATED = re.compile(
    r"(?=.{0,300}?\b(?:19|20)\d\d\b)(?=.{0,300}?\d:\d\d).{1,300}[:：]"
    r"|\s*(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2},\s.{1,100}[:：]"
)
# Such a line is often wrapped; this is how its first line begins.
_ATTRIBUTION_START = re.compile(
    r"\s*(?:-{2,}\s*)?(?:(?:on|am|le|el|il|em|op|den|dne|w dniu|in article|in (?:a )?message"
    r"|quoting|at|pe)\b|\d{1,4}[-./年]|\*|20\d\d\b)",
    re.IGNORECASE,
)
_TIME = re.compile(r"\d[:.h]\d\d|@|\b\d{4}\b")
_QUOTE = re.compile(r"\s{0,2}(?:>|[A-Z]{2,4}>)")
_QUOTE_MARKS = re.compile(r"\s{0,2}(?:[A-Z]{2,4}>|>)(?:[ \t]?>)*[ \t]?")
# Characters of a quoted line that was broken, and of what it ends with on the next line.
_BROKEN_LINE, _BROKEN_END = 55, 24
_LINE_END = re.compile(r"[.?!…:;,。！？][\"'”»)]*$", re.MULTILINE)
# A quote that stays as what an answer is about.
_CONTEXT_LINES, _CONTEXT_WORDS, _CONTEXT_LENGTH = 5, 4, 400

_SIGNATURE = re.compile(r"\s*(?:--|—|–)\s*")
_SEPARATOR = re.compile(r"\s*(?:[-_=*~#+]{5,}|--|—)\s*")
_SIGNATURE_LINES, _SET_OFF_LINES = 15, 6
# Shorter rules set off a signature, too; letters that are drawn below a mail are none of it.
_SHORT_RULE = re.compile(r"\s*[-_=*~]{3,4}\s*")
_DRAWN = re.compile(r"(?=.{12})[^\w\n]*+_[\W_]*")
CONTACT = re.compile(
    # A number that begins like a date is none of a telephone.
    r"\S@\S|\bwww\.|https?://"
    r"|(?<![\d/.-])(?!\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4}\b)\+?\d[\d ()/.-]{7,}\d"
    r"|\b(?:tel|phone|fax|mobile|mobil|cell)\b[^\n]{0,20}\d",
    re.IGNORECASE,
)
_SENT_FROM = re.compile(
    r"[-–—_*\s]*(?:sent (?:from|via|with|using) (?:my|the|a|your|yahoo|gmail|outlook|mail for"
    r"|samsung|iphone|ipad|android|blackberry|proton|\w{1,30} (?:on|for) \w).{0,80}"
    r"|get outlook for .{0,60}|sent (?:via|by) .{1,60}\b(?:service|mobil\w*|wireless)\b.{0,20}"
    r"|envoyé par .{1,40} service .{1,40}|envoyé par le service .{1,60}|(?:von meinem"
    r"|gesendet von|diese nachricht wurde von mein).{0,80}|envoyé (?:de mon|depuis|à partir d)"
    r".{0,60}|enviado (?:desde|do meu|a partir d).{0,60}|inviato da.{0,60}"
    r"|verzonden (?:vanaf|met|van).{0,60}|skickat från.{0,60}|sendt fra.{0,60}|wysłane z.{0,60}"
    r"|lähetetty .{0,60}"
    r"|отправлено (?:с|из).{0,60}|odesláno z.{0,60}|iphone ?から送信|发自我的.{0,40}"
    r"|從我的.{0,40}傳送|나의 .{0,20}에서 보냄)\s*",
    re.IGNORECASE,
)
# Footers of lists and of free mail, and the notices of companies: cut from here to the end.
_FOOTER = re.compile(
    r"\s*(?:you(?:'re| are)? receiv(?:ed|ing) this (?:message|e?-?mail|notification) because"
    r"|to (?:unsubscribe|subscribe|post (?:a message|to this)|view this discussion)\b"
    r"|(?:to (?:stop receiving|opt out)|(?:if you )?(?:no longer|do not|don['’]t) (?:want|wish) to"
    r" receive|if you(?:['’]d| would) (?:rather|prefer) not (?:to )?receive)\b"
    r"|to change your (?:e?-?mail|subscription)\b|unsubscribe\s*:"
    r"|for (?:more options|additional commands), (?:visit|e-?mail)"
    r"|\S+ (?:e?mail(?:ing)?[ -]?list|mailinglist|maillist)\b\W{0,3}(?:- |$|\S+@\S+|https?:)"
    r"|https?://\S{0,200}/(?:listinfo|mailman)/|[\w.-]+@[\w.-]+ mailing list"
    r"|do you yahoo!\?|yahoo! \w|this sf\.net e?-?mail|get your (?:private, )?free e?-?mail"
    r"|_+\s*do you yahoo|please consider the environment|reply to this email directly"
    r"|(?:this|the (?:information|content)s?) (?:[\w,()-]+ ){0,12}(?:is|are|may be|contains?)"
    r" (?:[\w,-]+ ){0,5}(?:confidential|privileged|intended (?:only|solely))"
    r"|(?:important |email |e-mail )?(?:confidentiality|disclaimer|privileged)\b.{0,30}(?:[:：]|$"
    r"|notice|note)|notice\s*:\s*(?:this|the information)\b"
    r"|diese (?:e-?mail|nachricht) (?:enthält|kann|ist).{0,40}vertraulich"
    r"|ce (?:message|courriel|mail) .{0,80}confidentiel|este (?:mensaje|correo|mensagem|e-?mail)"
    r" .{0,80}confidencia|questo messaggio .{0,80}(?:riservat|confidenzial)"
    r"|nota di riservatezza|aviso (?:legal|de confidencialidad)|avis de confidentialité)",
    re.IGNORECASE,
)
_FOOTER_LINES, _FOOTER_LENGTH = 40, 1500
_ADDRESS = re.compile(r"https?://\S+")
# What a newsletter says above its text.
_OPENING = re.compile(
    r"\A\s*(?:to view this e?-?mail (?:as a web ?page|in (?:a|your) (?:web ?)?browser)"
    r"|(?:click here to )?view (?:this e?-?mail |it )?(?:online|in (?:a|your) (?:web ?)?browser)"
    r"|(?:having )?trouble (?:viewing|reading) this)\b[^\n]*\n(?=\s*\n)",
    re.IGNORECASE,
)

# Addresses behind words that were links, and places of images.
_LINK = re.compile(
    r"[ \t]?<(?:https?://|mailto:|tel:)[^<>\s]{1,2000}>|[ \t]?\[(?:cid:|image\b)[^\[\]\n]{0,300}\]"
    r"|^[ \t]*\[[ \t]*https?://[^\s\]]{1,2000}[ \t]*\]$",
    re.IGNORECASE | re.MULTILINE,
)
# Archives of lists write `<ann at example.org>`, and alone on a line without brackets.
_DISGUISED = re.compile(
    r"(<(?:mailto:)?|^[ \t>]*(?:\[\d{1,3}\][ \t]*)?)([\w.+-]{1,100}) at"
    r" ([\w-]{1,100}(?:\.[\w-]{1,100}){1,5})(?=>|[ \t]*$)",
    re.MULTILINE,
)
# What programs keep in a mailbox, which some archives took for the first lines of the text.
_KEPT_FOR_MAILBOX = re.compile(
    r"\A\s*(?:(?:(?:X-)?Status: ?[A-Z]{0,6}|X-(?:UID|Keywords|Mozilla-Status2?): ?[^\n]{0,80}"
    r"|Content-Length: \d+|Lines: \d+)[ \t]*\n)+(?=\s*\n)"
)

# How a mailbox begins a mail, in one that was forwarded with its headers.
_MAILBOX_LINE = re.compile(
    r"^>?From \S{1,200} +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b[^\n]{0,40}\b(?:19|20)\d\d[ \t]*\n"
    r"(?=[A-Z][\w-]{1,40}: )",
    re.MULTILINE,
)

_PGP = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n){0,5}\n?(.*?)"
    r"(?:-----BEGIN PGP SIGNATURE-----.*?(?:-----END PGP SIGNATURE-----|\Z)|\Z)",
    re.DOTALL,
)
_PGP_BLOCK = re.compile(
    r"-----BEGIN PGP ((?:PUBLIC KEY|PRIVATE KEY|SIGNATURE|MESSAGE)[^\n-]{0,20})-----"
    r".*?(?:-----END PGP \1-----|\Z)",
    re.DOTALL,
)
# Files inside a text: uuencoded, or taken out by the program of a mailing list.
_INLINE_FILE = re.compile(
    r"^begin [0-7]{3,4} [^\n]{1,200}\n(?:[ -`]{1,62}\n)*(?:[ `]?\n)?(?:end\b[^\n]*\n?)?",
    re.MULTILINE,
)
_SCRUBBED = re.compile(
    r"^(?:Skipped content of type \S{1,80}?)?-{10,} next part -{10,}\n"
    r"(?:(?:A|An) [^\n]{1,80} (?:attachment|message) was scrubbed\.{3}\n"
    r"|An embedded [^\n]{1,80}\n)?"
    r"(?:(?:Name|Type|Size|Desc|U(?:RL|rl)|From|Subject|Date)\s?: [^\n]*"
    r"(?:\n[ \t]?<?https?:[^\n]*)?(?:\n|\Z))*"
    r"|^(?:A|An) [^\n]{1,80} attachment was scrubbed\.{3}\n(?:\w+\s?: [^\n]*\n)*"
    r"|^Skipped content of type \S{1,80}[ \t]*$",
    re.MULTILINE,
)


def unwrap_flowed(text: str, delete_space: bool) -> str:
    """Return format=flowed text (RFC 3676) with a line for each paragraph."""
    lines: list[str] = []
    last_depth, is_open = -1, False
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        is_signature = content.rstrip() == "--"
        if is_open and depth == last_depth and not is_signature:
            lines[-1] += content
        else:
            lines.append("> " * depth + content)
        is_open = content.endswith(" ") and not is_signature
        last_depth = depth
        if is_open and delete_space:
            lines[-1] = lines[-1][:-1]
    return "\n".join(lines)


def own_text(text: str, is_forward: bool = False) -> str:
    """Return what the writer of a mail wrote; a forwarded mail stays, without its header lines."""
    text = _PGP.sub(lambda signed: re.sub(r"^- ", "", signed[1], flags=re.MULTILINE), text)
    text = _SCRUBBED.sub("", _INLINE_FILE.sub("", _PGP_BLOCK.sub("", text)))
    # Between tags it is quoted code.
    text = re.sub(r"(?<!>)&nbsp;(?!<)", " ", text)
    text = _MAILBOX_LINE.sub("", _KEPT_FOR_MAILBOX.sub("", text))
    text = _OPENING.sub("", _DISGUISED.sub(r"\1\2@\3", text))
    lines = [line.rstrip() for line in _LINK.sub("", text).split("\n")]
    lines = _cut_footers(_mark_broken_quotes(lines))
    own: list[str] = []
    for mail in _split_originals(lines, is_forward):
        own += ["", *_cut_signature(_cut_quotes(_cut_opening(_cut_footers(mail))))]
    if not any(map(str.strip, own)) and is_forward:
        own = [_QUOTE_MARKS.sub("", line) for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(own)).strip("\n")


def _mark_broken_quotes(lines: list[str]) -> list[str]:
    """Mark the ends of quoted lines that a program broke as too long: words between two quotes."""
    for index in range(1, len(lines) - 1):
        above, line, below = lines[index - 1 : index + 2]
        is_end = 0 < len(line) <= _BROKEN_END and len(above) >= _BROKEN_LINE
        if is_end and not _QUOTE.match(line) and _QUOTE.match(above) and _QUOTE.match(below):
            lines[index] = f"> {line}"
    return lines


def _cut_footers(lines: list[str]) -> list[str]:
    """Cut what lists, free mail and companies add below a mail, with the line that sets it off."""
    for index in range(max(0, len(lines) - _FOOTER_LINES), len(lines)):
        above = lines[index - 1] if index else ""
        if _FOOTER.match(lines[index]) and (not above or _SEPARATOR.fullmatch(above)):
            # What goes on for long is the text of a newsletter.
            if len(_ADDRESS.sub("", "\n".join(lines[index:]))) > _FOOTER_LENGTH:
                return lines
            kept = lines[:index]
            while kept and (not kept[-1] or _SEPARATOR.fullmatch(kept[-1])):
                kept.pop()
            # Nothing but a footer is a mail about a list.
            return kept or lines
    return lines


def _header_end(lines: Sequence[str], start: int) -> int:
    """Return where header lines that are written into a text end; `start` if it has none."""
    end, others = start, 0
    has_sender = has_subject = False
    while end < min(len(lines), start + 12):
        line = lines[end]
        # Conversion from HTML leaves blank lines between them; a long one goes on below.
        if not line and end > start and end + 1 < len(lines):
            line = lines[end + 1]
        if _FROM.match(line):
            has_sender = True
        elif _SUBJECT.match(line):
            has_subject = True
        elif _OTHER_HEADER.match(line):
            others += 1
        elif not lines[end] or has_subject or end == start or not (has_sender and others):
            break
        end += 1 if line == lines[end] else 2
    has_place = has_subject or _TIME.search("\n".join(lines[start:end])) is not None
    return end if has_sender and has_place and others + has_subject >= 2 else start


def _attribution_length(lines: Sequence[str], end: int, is_marked: bool = True) -> int:
    """Return how many lines above `end` say who wrote the quote below, with or without marks."""
    for count in (3, 2, 1):
        above = [line.strip() for line in lines[max(0, end - count) : end]]
        if len(above) < count or not all(above):
            continue
        joined = " ".join(above)
        is_start = _ATTRIBUTION_START.match(joined) is not None and _TIME.search(joined) is not None
        is_said = _ATTRIBUTION.fullmatch(joined) or (is_marked and _DATED.fullmatch(joined))
        if (count == 1 or is_start) and is_said:
            return count
    return 0


def _split_originals(lines: list[str], is_forward: bool) -> list[list[str]]:
    """Return the new mail, and those forwarded below it without their header lines.

    A whole mail below that is only answered is cut.
    """
    mails: list[list[str]] = [[]]
    last_quote = max((n for n, line in enumerate(lines) if _QUOTE.match(line)), default=-1)
    index = 0
    while index < len(lines):
        line, kept = lines[index], mails[-1]
        end, is_mark = index, False
        # Most lines have neither; the patterns are long.
        has_colon = ":" in line or "：" in line
        if has_colon or line.lstrip().startswith(("--", "__")):
            end = _header_end(lines, index)
            has_mail_below = _FORWARDED.fullmatch(line) is not None
            is_mark = has_mail_below or _ORIGINAL.fullmatch(line) is not None
            is_forward = is_forward or has_mail_below
        if end == index and not is_mark:
            kept.append(line)
            announces = has_colon and not is_forward
            if announces and _starts_unmarked_quote(lines, index + 1, last_quote):
                mails[-1] = kept[: -_attribution_length(lines, index + 1, is_marked=False)]
                return mails
            index += 1
            continue
        # A mail that begins with another was forwarded, or is answered below.
        if any(kept) and not is_forward:
            while kept and (not kept[-1] or _SEPARATOR.fullmatch(kept[-1])):
                kept.pop()
            return mails
        mails.append([])
        index = max(end, index + 1)
    return mails


def _starts_unmarked_quote(lines: Sequence[str], end: int, last_quote: int) -> bool:
    """Return whether an attribution ends here, and what it announces has no quote marks.

    `last_quote` is the index of the last line with marks, -1 for none.
    """
    if not lines[end - 1].endswith((":", "：")):
        return False
    count = _attribution_length(lines, end, is_marked=False)
    has_text_above = any(lines[index] for index in range(end - count))
    if not count or not has_text_above:
        return False
    attribution = " ".join(lines[end - count : end])
    following = next((lines[index] for index in range(end, len(lines)) if lines[index]), "")
    has_place = re.search(r"\d[:.h]\d\d|@", attribution) is not None
    is_dated = _ATTRIBUTION_START.match(attribution) is not None and has_place
    # One without a date may stand above an answer, whose quotes follow.
    is_addressed = re.search(r"<[^<>\s]+@[^<>\s]+>", attribution) is not None
    is_alone = is_dated or (is_addressed and last_quote < end)
    return is_alone and not _QUOTE.match(following)


def _cut_opening(lines: list[str]) -> list[str]:
    """Cut the line above a mail that says who wrote what it quotes further below."""
    start = next((index for index, line in enumerate(lines) if line.strip()), 0)
    if any(map(_QUOTE.match, lines)):
        for end in range(start + 1, start + 4):
            if _attribution_length(lines, end, is_marked=False) == end - start:
                return lines[end:]
    return lines


def _cut_quotes(lines: list[str]) -> list[str]:
    """Cut quotes with the lines that announce them; a short one above an answer stays."""
    kept: list[str] = []
    context: list[str] = []
    index = 0
    while index < len(lines):
        if not _QUOTE.match(lines[index]):
            if lines[index] and context:
                count = next((n for n in (1, 2, 3) if _is_announcement(lines, index, n)), 0)
                # Only an answer has a use for it.
                kept += ["", *context, ""] if not count else []
                context = []
            kept.append(lines[index])
            index += 1
            continue
        if count := _attribution_length(kept, len(kept)) or _blank_above(kept):
            del kept[-count:]
        start = index
        while index < len(lines) and (
            _QUOTE.match(lines[index])
            or (not lines[index] and index + 1 < len(lines) and _QUOTE.match(lines[index + 1]))
        ):
            index += 1
        context = _quote_context(lines[start:index])
    return kept


def _is_announcement(lines: Sequence[str], start: int, count: int) -> bool:
    following = next(filter(None, lines[start + count :]), "")
    return bool(_QUOTE.match(following)) and _attribution_length(lines, start + count) >= count


def _blank_above(kept: Sequence[str]) -> int:
    """Return the lines of an attribution with the blank ones below it."""
    end = len(kept)
    while end and not kept[end - 1]:
        end -= 1
    count = _attribution_length(kept, end)
    return count + len(kept) - end if count else 0


def _quote_context(quote: Sequence[str]) -> list[str]:
    """Return the last paragraph of a quote, if it is a short one of the mail that is answered."""
    paragraphs: list[list[str]] = [[]]
    for line in quote:
        marks = _QUOTE_MARKS.match(line)
        content = line[marks.end() :].strip() if marks else ""
        if _SEPARATOR.fullmatch(content) or _FOOTER.match(content):
            break
        if not content or (marks and marks[0].count(">") > 1):
            paragraphs.append([])
        else:
            paragraphs[-1].append(content)
    last = next((part for part in reversed(paragraphs) if not _is_sign_off(part)), [])
    text = " ".join(last)
    is_short = len(last) <= _CONTEXT_LINES and len(text) <= _CONTEXT_LENGTH
    if not is_short or _ATTRIBUTION.fullmatch(text):
        return []
    return [f"> {line}" for line in last]


def _is_sign_off(paragraph: Sequence[str]) -> bool:
    """Return whether a paragraph says nothing: a name with a place or an address, or few words."""
    text = "\n".join(paragraph)
    words = text.split()
    capitals = sum(word[0].isupper() or word[0].isdigit() for word in words)
    is_titled = 2 * capitals >= len(words) or CONTACT.search(text) is not None
    return len(words) < _CONTEXT_WORDS or (is_titled and _LINE_END.search(text) is None)


def _cut_signature(lines: list[str]) -> list[str]:
    """Cut a signature below its dashes, or below a line that sets off addresses."""
    lines = _without_ending(lines)
    for index in range(max(0, len(lines) - _SIGNATURE_LINES), len(lines)):
        below = [line for line in lines[index + 1 :] if line.strip()]
        is_rule = _SEPARATOR.fullmatch(lines[index]) is not None
        if not is_rule and _SHORT_RULE.fullmatch(lines[index]):
            is_rule = not any(map(_SHORT_RULE.fullmatch, below))
        is_set_off = is_rule and len(below) <= _SET_OFF_LINES
        has_address = is_set_off and CONTACT.search("\n".join(below))
        if _SIGNATURE.fullmatch(lines[index]) or has_address:
            lines = lines[:index]
            break
    lines = _without_ending(lines)
    return lines


def _without_ending(lines: list[str]) -> list[str]:
    """Return lines without blank ones, rules and advertisements of programs at the end."""
    end = len(lines)
    while end and (
        not (last := lines[end - 1]).strip()
        or _SENT_FROM.fullmatch(last)
        or _SEPARATOR.fullmatch(last)
        or _DRAWN.fullmatch(last)
    ):
        end -= 1
    return lines[:end]
