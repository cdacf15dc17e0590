"""Tables as people have them: what is found in a file, what is wrong with it, and its limits."""

from __future__ import annotations

import io
import zipfile

import pytest

from worker.common.csv_rows import Dialect, read_records
from worker.common.tables import Limits, Table, TableError, read_table
from worker.common.tables.header import find_header

GERMAN = "Größe falsch, möchte das Päckchen zurücksenden, schöne Grüße aus Köln"


def opened(data: bytes | str, name: str = "x.csv", **options: object) -> Table:
    raw = data.encode() if isinstance(data, str) else data
    return read_table(raw, name, **options)  # type: ignore[arg-type]


def kinds(table: Table) -> dict[str, int]:
    """Read a table; return its problems by kind with their counts."""
    for _ in table.rows():
        pass
    return {problem.kind: problem.count for problem in table.problems}


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", GERMAN),
        ("utf-8-sig", GERMAN),
        ("utf-16", GERMAN),
        ("utf-16-le", GERMAN),
        ("utf-16-be", GERMAN),
        ("utf-32", GERMAN),
        ("cp1252", GERMAN),
        ("cp1252", "Je n'ai pas reçu ma commande, déjà trois semaines, c'est inadmissible"),
        ("cp1250", "Gdzie jest moja paczka? Zamówienie złożyłem tydzień temu, proszę o pomoc"),
        ("cp1251", "Где моя посылка? Я жду уже две недели, верните деньги за заказ"),
        ("cp1253", "Πού είναι το δέμα μου, περιμένω δύο εβδομάδες και θέλω επιστροφή χρημάτων"),
        ("cp932", "荷物はどこですか。二週間待っています。カードが盗まれました。パスワードを忘れた"),
        ("gb18030", "我的包裹在哪里？我已经等了两个星期了，我要退款"),
        ("cp949", "제 소포는 어디에 있나요? 2주째 기다리고 있습니다. 환불을 원합니다"),
    ],
)
def test_the_encoding_is_found_in_each_file(encoding: str, text: str) -> None:
    lines = "".join(f'"{text}",{number}\r\n' for number in range(20))
    table = opened(f"message,label\r\n{lines}".encode(encoding))
    assert next(table.rows())[1] == [text, "0"]
    assert kinds(table) == {}


def test_a_given_encoding_is_kept_to(tmp_path: object) -> None:
    data = f'message,label\r\n"{GERMAN}",a\r\n'.encode("cp1252")
    with pytest.raises(TableError, match=r"x\.csv:2: byte 18 \(0xf6\) is not utf-8: .*--encoding"):
        opened(data, encoding="utf-8")
    with pytest.raises(TableError, match="no such encoding"):
        opened(data, encoding="klingon")
    garbled = opened(data, encoding="cp437")
    assert garbled.found.encoding == "cp437"


def test_mojibake_is_repaired_in_cells_and_names_and_counted_by_row() -> None:
    garbled = "Größe".encode().decode("cp1252")
    rows = f"{garbled},{garbled}\nplain,b\n" * 7
    table = opened(f"message,{garbled}\n{rows}")
    assert table.columns == ("message", "Größe")
    assert [cells for _, cells in table.rows()][:2] == [["Größe", "Größe"], ["plain", "b"]]
    [problem] = table.problems
    assert (problem.kind, problem.count, problem.rows) == ("repaired", 7, (2, 4, 6, 8, 10))
    assert not problem.broken


def test_problems_hold_no_text_of_a_cell_and_are_the_same_in_each_pass() -> None:
    data = 'message,label\nsecret,words,a\n"secret,b\nfine,c\n#N/A,d\nsecret\ufffd,e\n'
    table = opened(data)
    assert kinds(table) == kinds(table) == {"width": 1, "quotes": 1, "garbled": 1, "error": 1}
    assert "secret" not in repr(table.problems)
    assert [number for number, _ in table.rows()] == [4, 5, 6]


def test_a_row_may_lack_cells_that_are_not_needed() -> None:
    """Excel leaves out empty cells at the end of a row."""
    table = opened("message,label,note\nhello,a\nwell,b,c\nalone\n")
    assert [number for number, _ in table.rows(["message", "label"])] == [2, 3]
    assert [(each.kind, each.rows) for each in table.problems] == [("width", (4,))]
    assert kinds(table) == {"width": 2}


@pytest.mark.parametrize(
    ("text", "columns", "header"),
    [
        ("Export,\nof May,\nid,message\n1,hello there\n", ("id", "message"), 3),
        ("1,hello there\n2,good bye\n", ("column 1", "column 2"), None),
        ("message,a,a,a (2)\nx,1,2,3\n", ("message", "a", "a (2)", "a (2) (2)"), 1),
        ("message,,label\nx,1,2\n", ("message", "column 2", "label"), 1),
        ("message,label,,\nx,1,,\n", ("message", "label"), 1),
        ("sep=|\na|b\n1|2\n", ("a", "b"), 2),
        ("message\nhello, you, there\nyes\n", ("message",), 1),
        ("message;label\nhello, you;a\nyes, me;b\n", ("message", "label"), 1),
    ],
)
def test_names_and_delimiter_are_found(
    text: str, columns: tuple[str, ...], header: int | None
) -> None:
    table = opened(text)
    assert (table.columns, table.found.header) == (columns, header)
    assert kinds(table).keys() <= {"no header", "twice"}


def test_a_workbook_is_refused_by_its_directory_before_it_is_unpacked() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * 20_000_000)
    data = packed.getvalue()
    with pytest.raises(TableError, match="zip bomb"):
        opened(data, "x.xlsx")
    with pytest.raises(TableError, match="unpacked it has 20 MB, and 1 MB are allowed"):
        opened(data, "x.xlsx", limits=Limits(max_unpacked_bytes=1_000_000))
    with pytest.raises(TableError, match="MB are allowed: split the file"):
        opened(data, "x.xlsx", limits=Limits(max_bytes=1000))


def test_open_quotes_are_each_reported_and_the_rest_is_read() -> None:
    lines = iter(['a,"b\n', "c,d\n", '"e,f\n', "g,h\n"])
    assert list(read_records(lines, Dialect(","))) == [
        (1, None),
        (2, ["c", "d"]),
        (3, None),
        (4, ["g", "h"]),
    ]


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.common.encodings.find_spec", lambda name: None)
    with pytest.raises(TableError, match=r"pip install -e '\.\[tables\]', or name the"):
        opened(f"message\n{GERMAN}\n".encode("cp1252"))


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["Ticket,,Text", "no,state,body", *["1,open,how are you", "2,open,fine"] * 5], 2),
        (["no,state,body", *["1,open,how are you", "2,open,fine"] * 5], 1),
        # A first row whose label comes again below is data.
        (["ticket,,label", "a,b,late", *["c,d,late", "e,f,lost"] * 5], 1),
        # Too few rows to tell.
        (["Ticket,,Text", "no,state,body", "1,open,how are you"], 1),
    ],
)
def test_the_names_of_groups_of_columns_are_not_the_columns_names(
    rows: list[str], line: int
) -> None:
    numbered = [(at, row.split(",")) for at, row in enumerate(rows, start=1)]
    assert find_header(numbered).line == line
