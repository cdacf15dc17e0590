"""Bodies that are HTML become the text that their reader sees; all others stay as they are."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.any_text import any_text
from worker.contract.html_text import MAX_WORK, html_to_text, is_html
from worker.contract.text import MAX_CHARS, is_too_long, message_sha256, normalize

MAILS = sorted(Path(__file__).with_name("html_mails").glob("*.html"))
"""Written for these tests after the HTML that mail programs and forms write."""


@pytest.mark.parametrize("mail", MAILS, ids=lambda mail: mail.stem)
def test_mails_of_all_programs_become_the_text_that_one_sees(mail: Path) -> None:
    wanted = mail.with_suffix(".txt").read_text(encoding="utf-8").removesuffix("\n")
    assert normalize(mail.read_text(encoding="utf-8")) == wanted


HTML = {
    "a document": "<!DOCTYPE html><html><body>Hello</body></html>",
    "a doctype in lower case, unclosed": "<!doctype html>\nHello <b>you",
    "a document with a footer": "<html><body><p>Hello</p></body></html>\nScanned by Guard",
    "a body with a footer": "<body>Hello</body>\n-- \nlist footer",
    "after a byte order mark and blanks": "\ufeff \n<html><body>Hello</body></html>",
    "after a declaration and comments": "<?xml version='1.0'?><!-- a --><!-- b -->\n<p>Hello</p>",
    "after an Outlook comment": "<!--[if gte mso 9]><xml/><![endif]--><div>Hello</div>",
    "a comment at its end": "<div>Hello</div><!-- sent by 10.0.0.1 -->",
    "a fragment of a ticket system": "<div class='c'><p>Hello</p></div>",
    "in capitals": "<P>Hello</P>",
    "paragraphs": "<p>One</p>\n<p>Two</p>",
    "text between two elements": "<p>One</p> Two <p>Three</p>",
    "a line with a bold name": "<b>Name:</b> Ann<br>",
    "an unclosed line at its end": "<p>Hello<br>",
    "a fragment that was cut off": "<div><p>Hello</p><p>I want my mon",
    "cut off within a tag": '<div><p>Hello</p><a href="https://exam',
    "cut off in a list": "<p>Hello</p><p>these:<ul><li>a</li><li>b",
    "a style at its beginning": "<style>p{color:red}</style>Hello",
    "lines broken with br": "Hello,<br>I want<br>my money",
    "lines broken with br and line ends": "Hello,<br />\n<br />\nI want<br />\nmy money",
    "a blank before br": "Hello, <br>I want <br>my money",
    "br at its beginning": "<br>Hello<br>World",
    "lines of a chat window": "Hi,<div><br></div><div>I want</div>",
    "an attached image": '<img src="cid:image001.png@01D">',
    "an image in text": 'Hello <img alt="" src="data:image/png;base64,iVBORw0KGgo="> bye',
    "only a link": "<a href='https://shop.example'>Shop</a>",
}

PLAIN = {
    "no tag": "Hello, where is my order?",
    "a comparison": "my cart says a < b",
    "two comparisons": "x<y and y>z",
    "a heart": "love you <3 and </3",
    "arrows": "<- here -> and <-- there -->",
    "an address": "Ann <ann@example.com> told me",
    "only an address": "<ann@example.com>",
    "addresses that begin like tags": "<b@x.de>, <p@x.de> and <a@x.de>",
    "a link": "<https://shop.example/a?b=c>",
    "links at both ends": "<https://a.example> or <https://b.example>",
    "a tag in prose": "Your mails show <b> in the first line",
    "a tag at the beginning of prose": "<b> is shown in my invoice",
    "tags at both ends of prose": "<p> tags are shown, and so is <b>",
    "a line tag in prose": "there is <br> or <br /> after each line, and <br>.",
    "prose of line tags": "<br> and <br>",
    "quoted line tags": "it says '<br>' here and '<br>' there",
    "bold words": "this is <b>important</b>, please",
    "only bold words": "<b>help</b>",
    "code after prose": "My page has\n<div class='x'>\n  <p>Hello</p>\n</div>",
    "code after prose on a line": "My code is <div class='x'>Hello</div>",
    "code before prose": "<div class='x'><p>Hello</p></div>\nWhy is this not centred?",
    "code within prose": "Hello,\n<p>{{name}}</p>\nis what customers see.\nWhy?",
    "a page in prose": "It answers\n<!DOCTYPE html><html><body>502</body></html>\nsince today",
    "XML": "<?xml version='1.0'?><order><id>5</id></order>",
    "an XML snippet": "<order><id>5</id></order>",
    "XML of short names": "<a><b>1</b><i>2</i></a>",
    "another document type": "<!DOCTYPE order SYSTEM 'order.dtd'><order/>",
    "a prompt": "<|im_start|>system<|im_end|>",
    "a placeholder": "Dear <name>, your order <number> is <state>",
    "redacted": "<[mail]> wrote",
    "quotations": "> <p>earlier</p>\n> <br>\nmine",
    "entities": "Tom &amp; Jerry &lt;br&gt; &#60;p&#62;",
    "a template": "{{#if x}}<{{tag}}>{{/if}}",
    "code of another language": "List<String> a = new List<B>();",
    "a shell command": "cat <in.txt >out.txt",
    "markdown": "**bold** [x](https://x.example) <!-- no -->",
    "only a comment": "<!-- hello -->",
}
"""All are returned unchanged: HTML in them is what the customer writes about."""


@pytest.mark.parametrize("why", HTML)
def test_these_bodies_are_html(why: str) -> None:
    assert is_html(HTML[why])
    assert not re.search(r"<[a-z/!?]", normalize(HTML[why]), re.IGNORECASE)


@pytest.mark.parametrize("why", PLAIN)
def test_these_bodies_are_not_html_and_stay_as_they_are(why: str) -> None:
    assert html_to_text(PLAIN[why]) is PLAIN[why]


def read(inner: str) -> str:
    """The text of a body in a document."""
    return normalize(f"<html><body>{inner}</body></html>")


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        # lines
        ("one<div>two</div>three", "one\ntwo\nthree"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("<div>one<br></div><div>two</div>", "one\ntwo"),
        ("a\n  line \n of source", "a line of source"),
        ("<b>bo</b>ld", "bold"),
        ("<h1>Title</h1>text", "Title\n\ntext"),
        ("<pre>a\n  b\r\nc</pre>d", "a\nb\nc\n\nd"),
        ("<div style='white-space: pre-wrap'>a\nb<div>c</div>\nd</div>e\nf", "a\nb\nc\n\nd\ne f"),
        # lists, tables
        ("<ul><li>a</li><li>b</ul>c", "- a\n- b\nc"),
        ("<ol><li><p>a</p></li><li></li></ol><p>b", "- a\n\nb"),
        ("<table><tr><td>a<td>b<tr><td><p>c</p></td><td><p>d</p></td></table>e", "a | b\nc | d\ne"),
        ("<table><tr><td>a</td><td></td><td>c</td></tr></table>", "a | c"),
        ("<table><tr><td><table><tr><td>in</table></td><td>out</td></table>", "in\nout"),
        # quotations
        ("m<blockquote>you<br>all<div>and</div></blockquote>m", "m\n\n> you\n> all\n> and\n\nm"),
        ("<blockquote>a<blockquote>b</blockquote></blockquote>c", "> a\n\n> b\n\nc"),
        ("<blockquote><pre>a\nb</pre></blockquote>", "> a\n> b"),
        ("</blockquote><blockquote>a", "> a"),
        # links, addresses
        ('see <a href="https://x.example/?token=1">this</a>', "see this"),
        ("from Ann <ann@example.com> at <https://x.example/a?b=c>", None),
        # characters
        ("&lt;b&gt; &amp;lt; &euro; &#8364; &#x20AC; &nosuch; &amp", "<b> &lt; € € € &nosuch; &"),
        ("&#0;&#xD800;&#x110000;&#" + "9" * 5000 + ";x", "\ufffd\ufffd\ufffd\ufffdx"),
        ("a\ud800b&zwnj;c &shy;d", "ab\u200cc \xadd"),
        ("3 < 5 and 5 <= 6 <3", "3 < 5 and 5 <= 6 <3"),
        # left out
        ("a<!-- b --><!--> c<!---> d <!--[if mso]><p>e</p><![endif]-->", "a c d"),
        ("<!--[if !mso]><!-->a<!--<![endif]--><![if !mso]>b<![endif]>", "ab"),
        ("a<style>b</style><script>c</script><title>d</title><SCRIPT>e</ScRiPt >f", "af"),
        ("a<script>'</scripture>'</script>b<textarea><p>c", "ab"),
        ("<img src='data:image/png;base64,AAAA' alt='logo'>a<input value='b'><?php c ?>", "a"),
        ("<svg><title>a</title></svg><svg/>b<object><p>c</object>d<math>e</math>", "bd"),
        ('<p title="a > b" data-x=\'<i>\'>c', "c"),
        ("<a<b>c", "c"),
        ("a<![CDATA[<b>b</b>]]>c", "ab]]>c"),
        ("<a href=x", ""),
        ("a<b", "a"),
        # hidden
        ("a<div hidden>b<div>c</div>d</div>e", "ae"),
        ("<p style='DISPLAY : None ! important'>a<p>b", "b"),
        ("<div><p hidden>a</div>b", "b"),
        ("<i style='visibility:hidden'>a</i>b", "b"),
        ("<i style='opacity:0'>a</i><i style='max-height:0px;overflow:hidden'>b</i>c", "c"),
        ("<i style='display&#58;none'>a</i>b", "b"),
        ("<input hidden>a<br style='display:none'>b", "a\nb"),
        ("<table><tr><td style='font-size:0px'><p>a", "a"),
        ("<i style='display:none;display:inline'>a</i><i title='hidden'>b</i>", "ab"),
        ("<div hidden>a", ""),
    ],
)  # fmt: skip
def test_elements_by_example(inner: str, text: str | None) -> None:
    assert read(inner) == (inner if text is None else text)


def test_no_image_moves_a_message() -> None:
    """Whatever its bytes are: the prompt is the same."""
    body = '<p>Where is my order?</p><img src="data:image/png;base64,{}">'
    texts = {normalize(body.format(bytes_ * 50_000)) for bytes_ in ("iVBORw0K", "/9j/4AAQ", "")}
    assert texts == {"Where is my order?"}


def test_a_mail_that_was_escaped_twice_is_read_to_its_text() -> None:
    assert read("&lt;p&gt;Hello &amp;amp; bye&lt;/p&gt;") == "Hello & bye"


def test_html_without_end_leaves_no_tag() -> None:
    """However often it was escaped."""
    body = "<p>Hello</p>"
    for _ in range(9):
        body = f"<p>{body.replace('&', '&amp;').replace('<', '&lt;')}</p>"
    assert "<" not in normalize(body)
    assert normalize(normalize(body)) == normalize(body)


def test_an_image_of_megabytes_does_not_cut_the_message() -> None:
    body = f'<p>First</p><img src="data:x,{"A" * 2_000_000}"><p>last</p>'
    assert normalize(body) == "First\n\nlast"
    assert not is_too_long(body)
    assert is_too_long(f"<p>{'word ' * MAX_CHARS}</p>")


@pytest.mark.parametrize(
    "much",
    [
        "<i>" * 100_000,
        "word " * 200_000,
        "&#1;" * 250_000,
        f"<i style='{'a;' * 500_000}'>",
        f"<i style='opacity:{'0' * 1_000_000}x'>",
    ],
    ids=["tags", "words", "entities", "declarations", "zeros"],
)
def test_text_after_more_work_than_any_mail_needs_is_dropped(much: str) -> None:
    assert html_to_text(f"<p>first{much}</p><p>last</p>").startswith("first")
    assert not html_to_text(f"<p>first{much}</p><p>last</p>").endswith("last")
    assert html_to_text(f"<p>first<i title='{'a' * MAX_WORK}'></p><p>last</p>").endswith("last")


def test_the_digest_of_html_is_that_of_its_text() -> None:
    """So a decision on a message as received and the row of a dataset are of the same message."""
    assert message_sha256("<p>Hello,<br>you</p>") == message_sha256("Hello,\nyou")


TAGS = st.sampled_from(
    re.findall(
        r"\S+",
        "<p> </p> <div> </div> <br> <b> </b> <td> <tr> </table> <li> <blockquote> </blockquote> "
        "<pre> </pre> <script> </script> <style> </style> <!-- --> <![CDATA[ ]]> <![if\u2000x]> "
        "<p/hidden> < > <div/style='display:none'> <textarea> </textarea> <a/href=\" <x/y=' \" ' "
        "<svg> </svg> </ <html> <body> </body> </html> <img/src='data:x'> <? ?> <a@b.de> << <\x00",
    )
)
WORDS = st.sampled_from(["a", " ", "\n", "x < y", "- ", "> ", "é", "\u0301", "\u200b", "\ud800"])
ENTITIES = st.sampled_from(["&lt;", "&gt;", "&amp;", "&#60;", "p", "br", "/", "&nbsp;", "&#10;"])
markup = st.lists(TAGS | WORDS, max_size=30).map("".join)


@given(markup | st.lists(TAGS | WORDS | ENTITIES | any_text, max_size=30).map("".join))
def test_a_text_that_was_read_once_is_read_the_same_again(text: str) -> None:
    for body in (text, f"<div>{text}</div>", f"<html>{text}"):
        once = normalize(body)
        assert normalize(once) == once
        assert once == once.strip()
        assert "\n\n\n" not in once


@given(markup)
def test_no_tag_of_html_is_left(text: str) -> None:
    """Addresses in angle brackets are none."""
    left = read(text).replace("<a@b.de>", "")
    assert not re.search(r"<[a-z/!?]", left, re.IGNORECASE), left


@given(any_text)
def test_a_text_without_angle_brackets_is_returned_as_it_is(text: str) -> None:
    plain = text.replace("<", "")
    assert html_to_text(plain) is plain
