"""Tables through the command: trained, used, and refused with nothing left behind."""

from pathlib import Path

import pytest

from tests.cli.helpers import SHORT, printed_metrics, refused, rows_of
from tests.tables.helpers import good, lines, text
from torchnn.cli import main

GOOD = text(lines(lambda row: f"00{row},{good(row)}", "id,x,c,y", 120))
FIT = ["fit", *SHORT, "--data.path", "t.csv", "--data.target", "y"]


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        ("", [], "t.csv is empty: use a table with a header and rows."),
        (GOOD.replace("000,0.5,", "000,0.5,red,", 1), [], "t.csv, row 0 (line 2) has 5 columns, but the header has 4"),
        (GOOD.encode("utf-16"), [], "t.csv is encoded as utf-16: set --data.encoding utf-16, or save"),
        (GOOD.replace("red", "r\0d"), [], "t.csv, line 2 contains a NUL byte"),
        (GOOD, ["--data.target", "yy"], "t.csv has no column 'yy' for --data.target: did you mean 'y'?"),
        (GOOD, ["--data.encoding", "klingon"], "--data.encoding is 'klingon': use a text encoding such as utf-8"),
        (GOOD, ["--data.delimiter", "::"], "--data.delimiter is '::': use one character, such as ; or tab."),
        (GOOD, ["--data.keep", "[q*]"], "--data.keep 'q*' matches no column of t.csv"),
        (GOOD, ["--data.folds", "100"], "--data.folds is 100, but one class has fewer rows than that"),
        (GOOD, ["--data.path", "missing.csv"], "missing.csv does not exist: give the path of a table."),
        (GOOD.replace("id,", "x,"), [], "t.csv, columns 1 and 2 are both named 'x': rename one of them."),
    ],
)
def test_a_bad_table_is_one_sentence_and_leaves_nothing_behind(
    content: str | bytes, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = Path("t.csv").read_bytes()
    assert sentence in refused([*FIT, *words], capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]
    assert Path("t.csv").read_bytes() == before


def test_a_table_is_trained_tested_and_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text(GOOD)
    main([*FIT, "--data.id_column", "id"])
    streams = capsys.readouterr()
    trained = printed_metrics(streams.out)
    assert streams.err == "torchnn: t.csv: 120 rows; number x; category c; y is 1 in 50.0%\n"
    main(["test"])
    assert printed_metrics(capsys.readouterr().out) == trained
    Path("new.csv").write_text(text(["c,id,x", *(f"{'pink' if row == 1 else 'red'},0{row},{row}" for row in range(9))]))
    main(["predict", "--data.path", "new.csv", "--output", "out.csv"])
    assert "column 'c' has values that did not occur in training, in 1 of 9 rows." in capsys.readouterr().err
    assert [row["id"] for row in rows_of(Path("out.csv"))] == [f"0{row}" for row in range(9)]
    Path("new.csv").write_text("c,id,z\nred,1,2\n")
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--data.path", "new.csv", "--output", "other.csv"])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("torchnn: new.csv does not have the column 'x' that the model was trained on: ")
    assert not Path("other.csv").exists()
