"""Reduce a body that is HTML to the text that its reader sees.

Part of the rules that ``worker.contract.text`` names, so training and serving read the same text.
A message that is not HTML is returned unchanged, whatever tags it mentions: a customer's code
sample, an XML snippet and ``<ann@example.com>`` are the message.

Left out are tags, comments (Outlook's conditional ones too), styles, scripts, images with their
sources, and elements that ``hidden`` or their own style hides: a reviewer would not see them
either, and hidden text is where instructions to a model are hidden. A block or ``<br>`` is a line,
a paragraph has an empty line around it, ``- `` begins an item, ``|`` divides a row's cells, and
``> `` begins the lines of a quotation, as in plain mail. Style sheets are not applied.
"""

from __future__ import annotations

import re
from html import unescape
from html.entities import html5

# The scanner reads the source once, keeps counters and no stack, and does a bounded amount of work.
# ``html.parser`` is as fast on mail, but quadratic on hostile text: 100 kB of "<a " take it more
# than a minute, and this scanner 2 ms.

MAX_WORK = 1_000_000
"""The characters of text and of ``style`` that are read, each tag counted as ten: the rest is
dropped. A mail of a megabyte costs about 400,000."""

_TAG_WORK = 10

# --- Is it HTML? ---
#
# Markup must hold the body together; it is not enough that the body contains some. How it begins
# and ends says so: prose before or after a sample of code makes the sample part of a message.

_STRUCTURE = (
    "html|head|body|meta|style|div|p|br|hr|span|font|center|table|tbody|tr|td|th|ul|ol|li|h[1-6]"
    "|blockquote|pre"
)
_INLINE = "a|b|strong|i|em|u|small|img"
_KNOWN = rf"(?:{_STRUCTURE}|{_INLINE})(?=[\s/>])"
_FIRST = re.compile(rf"<(!doctype\s+html\b|{_KNOWN})", re.IGNORECASE)
# "<a><b>1</b></a>" may be XML: names that XML uses too count with attributes of HTML only.
_SIGN = re.compile(
    rf"<(?:(?:{_STRUCTURE})(?=[\s/>])|(?:{_INLINE})\s[^<>]*?\b(?:href|src|style|class|dir)=)",
    re.IGNORECASE,
)
_END = re.compile(rf"</{_KNOWN}", re.IGNORECASE)
_LAST = re.compile(
    rf"<(?:/{_KNOWN}|(?:br|hr|img)(?=[\s/>]))[^<>]*>|<[^<>]*-->",
    re.IGNORECASE,
)
_OWN_ENDS = {
    name: re.compile(rf"</{end}\s*>", re.IGNORECASE)
    for name, end in (("html", "html"), ("head", "body"), ("body", "body"), ("style", "style"))
}
# Mail programs and editors write this, people do not; the bytes of an image are never the message.
_INLINE_IMAGE = re.compile(r"<img\s[^<>]*?\bsrc\s*=\s*[\"']?(?:data:|cid:)", re.IGNORECASE)
_LINE_TAG = re.compile(r"<(?:br\s{0,3}/?|(/?)(?:div|p)(?:\s[^<>]*)?)>", re.IGNORECASE)
# Two lines of text without a tag between them. A match begins at a character that is not blank, so
# blanks are read once.
_LOOSE_LINE_END = re.compile(r"[^>\s][^\S\n]*\n\s*[^<\s]")
_QUOTES = "\"'`“”„«»‚‘’(["
_AFTER_MENTION = frozenset(" \t\xa0\"'`“”„«»‚‘’)],.;:!?")
_BEFORE_MENTION = frozenset(" \t\xa0" + _QUOTES)
_AROUND = " \t\r\n\f\v\x00\xa0\u200b\ufeff"
_MOST_PREFACES = 8
_ENOUGH_LINE_TAGS = 1_000


def is_html(text: str) -> bool:
    """Whether a body is HTML. At once False for a text without ``<``.

    It is HTML if it begins with a doctype or an HTML tag and

    - ends with a tag that ends an element or a line, or with a comment, or
    - is an ``html``, ``head``, ``body`` or ``style`` element with text after its end, or
    - was cut off: its first element is still open, and elements after it were closed.

    Also if it begins with text whose lines end with tags (``Hello,<br>...<br>``, or
    ``Hello,<div>...</div>``), two at least, and if an ``img`` carries its bytes or is attached.
    """
    if "<" not in text:
        return False
    if len(text) > 2 * MAX_WORK:
        text = text[:MAX_WORK] + text[-MAX_WORK:]
    text = text.strip(_AROUND)
    first = _FIRST.match(text, _after_preface(text))
    return (
        _has_line_tags(text) if first is None else _is_held(text, first[1].lower(), first.end())
    ) or _INLINE_IMAGE.search(text) is not None


def _after_preface(text: str) -> int:
    """Return where comments and an XML declaration before the first tag end."""
    at = 0
    for _ in range(_MOST_PREFACES):
        if text.startswith("<!--", at):
            end = text.find("-->", at)
        elif text.startswith("<?xml", at):
            end = text.find(">", at) - 2
        else:
            break
        if end < 0:
            break
        at = end + 3
        while at < len(text) and text[at] in _AROUND:
            at += 1
    return at


def _is_held(text: str, name: str, rest: int) -> bool:
    """Whether a text that begins with this tag is HTML up to its end."""
    if name.startswith("!"):
        return True
    if _SIGN.search(text) is None:
        return False
    last = _LAST.fullmatch(text, text.rfind("<")) if text.endswith(">") else None
    ends = _END.search(text, rest) is not None
    if name == "br":  # not "<br> and <br> are shown"
        return (last is not None and ends) or _has_line_tags(text)
    if last is not None:
        return ends or name == "img" or _SIGN.search(text, rest) is not None
    if (own := _OWN_ENDS.get(name)) is not None and own.search(text, rest):
        return True
    return ends and _count(rf"<{name}(?=[\s/>])", text) > _count(rf"</{name}(?=[\s>])", text)


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE))


def _has_line_tags(text: str) -> bool:
    """Whether tags end the lines of a text: each is at a line's end, and no line ends without."""
    found, blocks = 0, False
    for tag in _LINE_TAG.finditer(text):
        before = text[tag.start() - 1] if tag.start() else " "
        after = text[tag.end()] if tag.end() < len(text) else " "
        if tag[1] is None:
            if before in _BEFORE_MENTION and after in _AFTER_MENTION:
                return False
        elif not tag[1]:
            # A sample stands apart from the words before it.
            if before.isspace() or before in _QUOTES:
                return False
            blocks = True
        found += 1
        if found == _ENOUGH_LINE_TAGS:
            break
    if found < 2 or _LOOSE_LINE_END.search(text):
        return False
    return not blocks or (text.endswith(">") and _LAST.fullmatch(text, text.rfind("<")) is not None)


# --- From HTML to text ---


def html_to_text(text: str) -> str:
    """Return the text of a body that is HTML; any other body unchanged.

    The text of HTML can look like HTML again (a mail about ``&lt;p&gt;``): see ``normalize``.
    """
    return _Reader(text).read() if is_html(text) else text


def _names(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\S+", text))


_LINE = _names(
    "address article aside body caption center dd details dialog div dl dt fieldset figcaption "
    "figure footer form head header html legend li main menu nav ol section "
    "summary table tbody tfoot thead tr ul"
)
_PARAGRAPH = _names("blockquote h1 h2 h3 h4 h5 h6 hr p pre")
_BLOCK = _LINE | _PARAGRAPH
_ROW = _names("table tbody tfoot thead tr")
_VOID = _names(
    "area base basefont bgsound br col embed frame hr img input keygen link meta param source "
    "track wbr"
)
# Their content is not markup, and not shown; what fields of forms hold is not the sender's text.
_RAW = _names("iframe noembed noframes script style textarea title xmp")
_DROPPED = _names("audio canvas datalist math object select svg template video xml")
_NEVER_HIDDEN = _VOID | {"html", "body"}

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
# Careless templates leave these unescaped; no element has such a name.
_ADDRESS = re.compile(
    r"<(?:[^\s<>\"'=&;@]{1,128}@[^\s<>\"'=&;@]{1,255}|https?://[^\s<>\"';]{1,500})>"
)
_TAG_END = re.compile(r">|=\s*([\"'])")
_RAW_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in _RAW}
_SHORT_COMMENT = re.compile(r"<!---?>")
_COMMENT_END = re.compile(r"--!?>")
_ANGLE_BRACKETS = re.compile(r"<+")
# After one of these "<" is a sign; before anything else it could become part of a tag.
_AFTER_SIGN = frozenset(" \t\n\r\xa0=-0123456789")
_NOTABLE = re.compile(r"hidden|style", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([^\s\"'<>/=]+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s\"'>]*))?")
_ZERO = re.compile(r"(?:0+(?:\.0*)?|\.0+)(?:px|pt|em|%)?")
_ENTITY = re.compile(r"&(?:#(?:[xX][0-9a-fA-F]+|[0-9]+);?|([a-zA-Z][a-zA-Z0-9]{1,31};?))")
_MOST_ENTITY_CHARS = 12
_BLANKS = str.maketrans("\t\n\r\f", "    ")


class _Reader:
    """Reads HTML once, from the left to the right.

    ``_hidden`` and ``_pre`` count the open elements with the name of the one that hides, or keeps
    its line ends: enough to find its end, and no stack grows with the source.
    """

    __slots__ = ("_hidden", "_lines", "_pre", "_quotes_close", "_room", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = _Lines()
        self._hidden = _Element()
        self._pre = _Element()
        self._quotes_close = True
        self._room = MAX_WORK

    def read(self) -> str:
        source, at = self._source, 0
        while self._room > 0:
            start = source.find("<", at)
            end = start if start >= 0 else len(source)
            self._text(source[at : min(end, at + self._room)])
            self._room -= end - at + _TAG_WORK
            if start < 0:
                break
            at = self._markup(start)
        return self._lines.finish()

    def _text(self, text: str) -> None:
        if not text or self._hidden:
            return
        text = _without_entities(text)
        if self._pre:
            self._lines.add_lines(text)
        else:
            self._lines.add(text.translate(_BLANKS))

    def _markup(self, start: int) -> int:
        """Read what begins with the ``<`` at ``start``; return where it ends."""
        source = self._source
        found = _TAG.match(source, start)
        if found is None:
            return self._no_tag(start)
        closing, name = bool(found[1]), found[2].lower()
        if ("@" in name or name.startswith("http")) and (address := _ADDRESS.match(source, start)):
            self._text(address[0])
            return address.end()
        end = self._tag_end(found.end())
        attributes = source[found.end() : end].removesuffix(">")
        if not closing and name in _RAW and not (name == "title" and attributes.endswith("/")):
            content_end = _RAW_END[name].search(source, end)
            return content_end.start() if content_end else len(source)
        self._tag(name, attributes, closing=closing)
        return end

    def _no_tag(self, start: int) -> int:
        """A comment, a declaration, or a sign."""
        source = self._source
        if source.startswith("<!--", start):
            if short := _SHORT_COMMENT.match(source, start):
                return short.end()
            comment = _COMMENT_END.search(source, start + 4)
            return comment.end() if comment else len(source)
        if source.startswith(("!", "?", "/"), start + 1):
            return self._after_bracket(start)
        end = _ANGLE_BRACKETS.match(source, start).end()  # type: ignore[union-attr]
        if end > start + 1:
            return end - 1
        if source[end : end + 1] in _AFTER_SIGN or end == len(source):
            self._text("<")
        return end

    def _after_bracket(self, at: int) -> int:
        return self._source.find(">", at) + 1 or len(self._source)

    def _tag_end(self, at: int) -> int:
        """Return the position after a tag's ``>``, which a quoted value may contain, too.

        A quote that never closes runs to the source's end. From then on quotes are ignored:
        otherwise each tag would look that far.
        """
        if self._quotes_close:
            within = at
            while found := _TAG_END.search(self._source, within):
                if found[1] is None:
                    return found.end()
                within = self._source.find(found[1], found.end()) + 1
                if not within:
                    break
            self._quotes_close = False
        return self._after_bracket(at)

    def _tag(self, name: str, attributes: str, *, closing: bool) -> None:
        if self._hidden:
            # The end tag of a paragraph can be left out: any block ends it.
            ends = self._hidden.name == "p" and name in _BLOCK and not (name == "p" and closing)
            if not ends:
                self._hidden.count(name, closing=closing)
                return
            self._hidden.clear()
        if not closing:
            style = {}
            if _NOTABLE.search(attributes):
                self._room -= len(attributes)
                style = _style(attributes)
            if name in _DROPPED and not attributes.endswith("/"):
                self._hidden.enter(name)
                return
            if _is_hidden(style) and name not in _NEVER_HIDDEN:
                self._hidden.enter(name)
                return
            if not self._pre and (name == "pre" or style.get("white-space", "").startswith("pre")):
                self._pre.enter(name)
            else:
                self._pre.count(name, closing=False)
        self._break(name, attributes, closing=closing)
        if closing:
            self._pre.count(name, closing=True)

    def _break(self, name: str, attributes: str, *, closing: bool) -> None:
        lines = self._lines
        if name == "br":
            lines.end_line()
        elif name in ("td", "th"):
            if not closing:
                lines.begin_cell()
        elif name in _ROW:
            lines.begin_row()
        elif name == "li":
            lines.begin_item("" if closing else "- ")
        elif name in _PARAGRAPH:
            # Outlook's paragraphs are lines. An empty line precedes other paragraphs.
            is_line = name == "p" and (closing or "Mso" in attributes)
            lines.separate(1 if is_line else 2)
        elif name in _LINE:
            lines.separate(1)
        if name == "blockquote":
            lines.quoted = max(0, lines.quoted + (-1 if closing else 1))


class _Element:
    """The open elements of one name; false if there are none."""

    __slots__ = ("depth", "name")

    def __init__(self) -> None:
        self.name, self.depth = "", 0

    def __bool__(self) -> bool:
        return self.depth > 0

    def enter(self, name: str) -> None:
        self.name, self.depth = name, 1

    def clear(self) -> None:
        self.depth = 0

    def count(self, name: str, *, closing: bool) -> None:
        if self.depth and name == self.name:
            self.depth += -1 if closing else 1


class _Lines:
    """The text so far. ``_ended`` is the number of line ends since the last text, ``_wanted`` how
    many the next text needs at least."""

    __slots__ = ("_bullet", "_cell", "_ended", "_first", "_parts", "_row", "_wanted", "quoted")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._ended, self._wanted = 2, 0
        # The row has text; a cell, or an item, has begun and has none yet.
        self._row = self._cell = self._first = False
        self._bullet = ""
        self.quoted = 0

    def add(self, text: str) -> None:
        """Add text without line ends. Blanks alone do not begin a line."""
        if text.strip(" "):
            self._begin()
            self._parts.append(text)
        elif not self._ended and not self._wanted:
            self._parts.append(" ")

    def add_lines(self, text: str) -> None:
        """Add text with its line ends."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        kept = text.rstrip()
        if kept:
            self._begin()
            self._parts.append(kept.replace("\n", "\n> ") if self.quoted else kept)
        for _ in range(min(3, text.count("\n", len(kept)))):
            self.end_line()

    def _begin(self) -> None:
        missing = self._wanted - self._ended
        if missing > 0:
            self._parts.append("\n" * missing)
        if missing > 0 or self._ended:
            self._parts += ["> " if self.quoted else "", self._bullet]
            self._bullet = ""
        elif self._cell:
            self._parts.append(" | ")
        self._ended = self._wanted = 0
        self._row, self._cell, self._first = True, False, False

    def end_line(self) -> None:
        missing = max(0, self._wanted - self._ended) + 1
        self._parts.append("\n" * missing)
        self._ended, self._wanted, self._cell = self._ended + missing, 0, False

    def separate(self, line_ends: int) -> None:
        """Begin a new block. The first in a cell or an item stays on its line."""
        if not self._first:
            self._wanted = max(self._wanted, line_ends)

    def begin_row(self) -> None:
        self._row = self._cell = self._first = False
        self.separate(1)

    def begin_cell(self) -> None:
        self._first = True
        if self._row and not self._ended:
            self._cell, self._wanted = True, 0

    def begin_item(self, bullet: str) -> None:
        self._first = False
        self.separate(1)
        self._bullet, self._first = bullet, bool(bullet)

    def finish(self) -> str:
        return "\n".join([line.strip() for line in "".join(self._parts).split("\n")]).strip()


def _without_entities(text: str) -> str:
    return _ENTITY.sub(_entity, text) if "&" in text else text


def _entity(found: re.Match[str]) -> str:
    name = found[1]
    if name is not None:
        return html5[name] if name in html5 else unescape(found[0])
    # ``int`` refuses thousands of digits, and no character has such a number.
    return unescape(found[0]) if len(found[0]) <= _MOST_ENTITY_CHARS else "\ufffd"


def _style(attributes: str) -> dict[str, str]:
    """Return the declarations of an element's own style; ``hidden`` is one that does not display.

    Of repeated attributes the first counts, of repeated declarations the last.
    """
    found: dict[str, str] = {}
    for attribute in _ATTRIBUTE.finditer(attributes):
        found.setdefault(attribute[1].lower(), attribute[2] or "")
    style = _without_entities(found.get("style", "").strip("\"'")).lower()
    declared = {}
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        declared[name.strip()] = value.partition("!")[0].strip()
    if "hidden" in found:
        declared["display"] = "none"
    return declared


def _is_hidden(style: dict[str, str]) -> bool:
    return (
        style.get("display") == "none"
        or style.get("visibility") in {"hidden", "collapse"}
        or _is_zero(style.get("opacity"))
        or (_is_zero(style.get("max-height")) and style.get("overflow") == "hidden")
    )


def _is_zero(value: str | None) -> bool:
    return bool(value) and _ZERO.fullmatch(value) is not None  # type: ignore[arg-type]
