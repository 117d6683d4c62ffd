from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from pathlib import Path

import pytest
from tones import write_tone

from spectrim.data import DATA_SETS, PARTS, AudioDataset
from spectrim.errors import DataError, InvalidSetting


def write_table(root: Path, text: str, name: str = "labels.csv") -> Path:
    """A table, and a tone for each file in clips/ that it names."""
    (root / name).write_text(text, encoding="utf-8")
    for word in text.replace(",", " ").replace(";", " ").replace("\t", " ").split():
        if word.startswith("clips/"):
            write_tone(root / word)
    return root


def rows(header: str, count: int, tail: str) -> str:
    """``header`` and ``count`` lines of a path and ``tail``, in which {n} counts and {c} is a, b or c."""
    lines = [f"clips/{number}.wav,{tail.format(n=number, c='abc'[number % 3])}" for number in range(count)]
    return "\n".join([header, *lines]) + "\n"


def opened(root: Path, part: str = "train", **options: object) -> AudioDataset:
    return DATA_SETS["csv"].open(root, part, **options)


def ids(part: AudioDataset) -> list[str]:
    return [recording.id for recording in part.recordings]


def test_the_column_split_says_the_part(tmp_path: Path) -> None:
    text = "path,label,split\nclips/1.wav,dog,train\nclips/2.wav,cat,test\nclips/3.wav,cat,validation\n"
    write_table(tmp_path, text)
    parts = {part: opened(tmp_path, part) for part in PARTS}
    assert [ids(part) for part in parts.values()] == [["clips/1.wav"], ["clips/3.wav"], ["clips/2.wav"]]
    assert all(part.labels == ["cat", "dog"] for part in parts.values())
    assert (parts["train"].multi_label, parts["train"].metric, parts["train"].folds) == (False, "accuracy", ())
    assert parts["train"][0].target.tolist() == [0, 1]


def test_parts_that_the_column_split_lacks_are_made(tmp_path: Path) -> None:
    text = rows("path,label,split", 30, "{c},train") + "clips/x.wav,a,test\n"
    write_table(tmp_path, text)
    validation = opened(tmp_path, "validation", validation_share=0.2)
    assert Counter(recording.labels for recording in validation.recordings) == {(0,): 2, (1,): 2, (2,): 2}
    assert ids(opened(tmp_path, "test", validation_share=0.2)) == ["clips/x.wav"]
    assert not set(ids(validation)) & set(ids(opened(tmp_path, "train", validation_share=0.2)))


def test_one_fold_is_held_out(tmp_path: Path) -> None:
    text = "path,label,fold\n" + "".join(f"clips/{fold}.wav,a,{fold}\n" for fold in (3, 7, 10, 12))
    write_table(tmp_path, text)
    assert opened(tmp_path).folds == (3, 7, 10, 12)
    assert ids(opened(tmp_path, "test")) == ids(opened(tmp_path, "validation")) == ["clips/3.wav"]
    assert ids(opened(tmp_path, "train", fold=10, validation_fold=7)) == ["clips/3.wav", "clips/12.wav"]
    assert ids(opened(tmp_path, "validation", fold=10, validation_fold=7)) == ["clips/7.wav"]
    assert ids(opened(tmp_path, "test", fold=10, validation_fold=7)) == ["clips/10.wav"]
    with pytest.raises(InvalidSetting, match="fold is 4; allowed: one of 3, 7, 10, 12"):
        opened(tmp_path, fold=4)


def test_split_counts_beside_fold_unless_a_fold_is_asked_for(tmp_path: Path) -> None:
    text = "path,label,fold,split\nclips/1.wav,a,1,test\nclips/2.wav,a,2,train\nclips/3.wav,a,3,validation\n"
    write_table(tmp_path, text)
    assert ids(opened(tmp_path, "test")) == ["clips/1.wav"]
    assert ids(opened(tmp_path, "test", fold=2)) == ["clips/2.wav"]


def test_without_split_and_fold_the_seed_splits(tmp_path: Path) -> None:
    write_table(tmp_path, rows("path,label", 30, "{c}"))
    parts = {part: opened(tmp_path, part, validation_share=0.1, test_share=0.2, seed=1) for part in PARTS}
    assert [len(part) for part in parts.values()] == [21, 3, 6]
    assert Counter(recording.labels for recording in parts["test"].recordings) == {(0,): 2, (1,): 2, (2,): 2}
    assert len({name for part in parts.values() for name in ids(part)}) == 30
    assert ids(parts["test"]) != ids(opened(tmp_path, "test", validation_share=0.1, test_share=0.2, seed=2))


def test_a_missing_file_does_not_move_the_others(tmp_path: Path) -> None:
    write_table(tmp_path, rows("path,label", 60, "{c}"))
    before = {part: ids(opened(tmp_path, part)) for part in PARTS}
    gone = before["train"][5]
    (tmp_path / gone).unlink()
    train = opened(tmp_path, "train")
    assert (list(train.missing), ids(train)) == ([gone], [name for name in before["train"] if name != gone])
    assert all(ids(opened(tmp_path, part)) == before[part] for part in ("validation", "test"))


@pytest.mark.parametrize(("separator", "joined"), [(";", "rain; wind"), ("|", "rain |wind"), (" ", "rain  wind")])
def test_several_labels(tmp_path: Path, separator: str, joined: str) -> None:
    text = f"path,labels,split\nclips/1.wav,{joined},train\nclips/2.wav,,train\nclips/3.wav,sun,validation\n"
    write_table(tmp_path, text)
    part = opened(tmp_path, label_separator=separator)
    assert part.labels == ["rain", "sun", "wind"]
    assert [clip.target.tolist() for clip in part] == [[1, 0, 1], [0, 0, 0]]
    assert (part.multi_label, part.metric) == (True, "mAP")


def test_a_label_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    write_table(tmp_path, "path,labels,fold\nclips/1.wav,wind;rain;wind,1\n")
    assert opened(tmp_path, "test").recordings[0].labels == (0, 1)


def test_several_labels_are_split_by_seed_too(tmp_path: Path) -> None:
    write_table(tmp_path, rows("path,labels", 20, "x{n}"))
    parts = {part: ids(opened(tmp_path, part)) for part in PARTS}
    assert [len(names) for names in parts.values()] == [16, 2, 2]
    assert len({name for names in parts.values() for name in names}) == 20


def test_any_delimiter_quotes_a_byte_order_mark_and_further_columns(tmp_path: Path) -> None:
    table = '\ufeffnote;label;path;split\r\n"x; y";dog;"clips/1.wav";train\r\n\r\n;cat;clips/2.wav;validation\r\n'
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8", newline="")
    write_tone(tmp_path / "clips" / "1.wav")
    part = opened(tmp_path, delimiter=";")
    assert (ids(part), part.labels, part.recordings[0].labels) == (["clips/1.wav"], ["cat", "dog"], (1,))
    (tmp_path / "labels.csv").write_text("\ufeffpath\tlabel\tfold\nclips/1.wav\tdog, brown\t1\n", "utf-8")
    assert opened(tmp_path, "test", delimiter="\t").labels == ["dog, brown"]


def test_the_table_itself_can_be_named(tmp_path: Path) -> None:
    text = "path,label,split\nclips/1.wav,dog,train\nclips/2.wav,dog,validation\n"
    write_table(tmp_path, text, "mine.tsv")
    assert ids(opened(tmp_path / "mine.tsv")) == ids(opened(tmp_path, table="mine.tsv")) == ["clips/1.wav"]
    assert ids(opened(tmp_path / "mine.tsv", "test", table="mine.tsv")) == ["clips/2.wav"]
    with pytest.raises(InvalidSetting, match=r"table is 'other\.csv'; allowed: none beside .*mine\.tsv"):
        opened(tmp_path / "mine.tsv", table="other.csv")
    with pytest.raises(DataError, match=r"a folder with a table of clips: it lacks labels\.csv"):
        opened(tmp_path)


def test_absolute_paths(tmp_path: Path) -> None:
    samples = write_tone(tmp_path / "elsewhere" / "x.wav", 700)
    (tmp_path / "here").mkdir()
    write_table(tmp_path / "here", f"path,label,fold\n{tmp_path}/elsewhere/x.wav,a,1\nclips/y.wav,a,2\n")
    assert opened(tmp_path / "here", "test")[0].waveform.tolist() == samples.tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_cells_are_those_that_python_csv_reads(tmp_path: Path, encoding: str) -> None:
    odd = ["a\u2028b", "a\x85b", "a\x0cb", " a", "a ", "a\r\nb", "a\rb", 'a"b', "a,b", "\u65e5\u672c"]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("path", "label", "fold"), *((f"{n} .wav", name, 1) for n, name in enumerate(odd))])
    (tmp_path / "labels.csv").write_bytes(text.getvalue().encode(encoding))
    for number in range(len(odd)):
        write_tone(tmp_path / f"{number} .wav", seconds=0.03)
    part = opened(tmp_path, "test")
    known = list(csv.DictReader(io.StringIO(text.getvalue(), newline="")))
    assert [(r.id, part.labels[r.labels[0]]) for r in part.recordings] == [(k["path"], k["label"]) for k in known]
    assert part.labels == sorted(odd)


def test_a_table_in_utf16_without_its_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("path,label\nx.wav,a\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="zero byte at byte 1; save it as UTF-8, or as UTF-16 with a byte order mark"):
        opened(tmp_path)


@pytest.mark.parametrize("options", [{}, {"test_share": 1}])
def test_a_test_set_alone_is_opened(tmp_path: Path, options: dict[str, object]) -> None:
    write_table(tmp_path, rows("path,label" + ",split" * (not options), 5, "{c}" + ",test" * (not options)))
    assert len(opened(tmp_path, "test", **options)) == 5
    for part, name in (("train", "training"), ("validation", "validation")):
        with pytest.raises(DataError, match=f"no {name} clips, only test"):
            opened(tmp_path, part, **options)


def test_labels_of_a_model_complete_those_of_its_test_set(tmp_path: Path) -> None:
    write_table(tmp_path, rows("path,label,split", 3, "{c},test"))
    wider = opened(tmp_path, "test").with_labels(["c", "x", "a", "b"])
    assert wider.labels == ["c", "x", "a", "b"]
    assert [clip.target.argmax() for clip in wider] == [2, 3, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"labels\.csv is empty"),
        ("path,label\n", "holds no clips"),
        ("file,label\nx.wav,a\n", r"line 1: the header lacks path; separated by ',' it has 'file', 'label'"),
        ("path;label\nx.wav;a\n", r"lacks path; separated by ',' it has 'path;label'; .* --set 'delimiter=;'"),
        ("path\tlabel\nx.wav\ta\n", r"seem to be separated by '\\t': a data set csv is told so by --set \$'delimiter"),
        ("path,name\nx.wav,a\n", r"one of the columns label and labels; separated by ',' it has 'path', 'name'$"),
        ("path,label,labels\nx.wav,a,b\n", "one of the columns label and labels"),
        ("path,label,path\nx.wav,a,b\n", "line 1: the header has 'path' twice"),
        ("path,label\nx.wav,a\ny, z.wav,b\n", "line 3: 3 cells where the header has 2; cells are separated by ','"),
        ("path,label\n\nx.wav;a\n", "line 3: 1 cells where the header has 2"),
        ('path,label\nx.wav,"a\n', "line 2: .*cells are separated by ','"),
        ('path,label\n"x.wav"y,a\n', "line 2: .*cells are separated by ','"),
        ("path,label\nx.wav,\n", "line 2: the cell for path or label is empty"),
        ("path,label\n,a\n", "line 2: the cell for path or label is empty"),
        ("path,label\nx.wav,a\nx.wav,b\n", r"line 3: x\.wav is there twice, first in labels\.csv, line 2"),
        (
            "path,label\nx.wav,a\ny.wav,a\n./x.wav,a\n",
            r"line 4: \./x\.wav is there twice, first in labels\.csv, line 2",
        ),
        ("path,label\nclips/x.wav,a\nclips/y/../x.wav,a\n", r"line 3: .* is there twice"),
        ("path,label,split\nx.wav,a,dev\n", "line 2: split is 'dev'; allowed: train, validation, test"),
        (
            "path, label\nx.wav,a\n",
            r"one of the columns label .* it has 'path', ' label'; blanks are part of a name: remove",
        ),
        ("path,label,fold\nx.wav,a,first\n", "line 2: fold is 'first', not a whole number"),
        ("path,label,split\nx.wav,a,test\n", "no training clips, only test; a part that is there can be evaluated"),
        (f"path,label,split\nx.wav,a,{'x' * 9999}\n", r"line 2: split is 'x{70,150} … x{30,50}' \(10001 characters\)"),
    ],
)
def test_a_table_with_something_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        opened(tmp_path)


def test_a_relative_path_and_an_absolute_one_are_one_clip(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"path,label\nx.wav,a\n{tmp_path}/x.wav,a\n")
    with pytest.raises(DataError, match=r"line 3: .*x\.wav is there twice"):
        opened(tmp_path)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"path,label\nx.wav,\xff\n")
    with pytest.raises(DataError, match="not UTF-8 text: invalid start byte at byte 17; save it as UTF-8"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delimiter": ""}, "delimiter is ''; allowed: one character"),
        ({"delimiter": "::"}, "delimiter is '::'"),
        ({"delimiter": 1}, "delimiter is 1"),
        ({"label_separator": ""}, "label_separator is ''"),
        ({"fold": 1}, "fold is 1; allowed: none: .* has no column fold; with the option folds=5"),
        ({"validation_fold": 2}, "has no column fold"),
    ],
)
def test_a_wrong_option(tmp_path: Path, options: dict[str, object], words: str) -> None:
    write_table(tmp_path, "path,label,split\nclips/1.wav,a,train\n")
    with pytest.raises(InvalidSetting, match=words):
        opened(tmp_path, **options)
    with pytest.raises(InvalidSetting, match="part is 'dev'"):
        opened(tmp_path, "dev")


def spoken(speakers: list[str]) -> str:
    """A table of clips of these speakers; each says a, b and c in turn."""
    lines = [f"clips/{number}.wav,{'abc'[number % 3]},{speaker}" for number, speaker in enumerate(speakers)]
    return "\n".join(["path,label,speaker", *lines]) + "\n"


@pytest.mark.parametrize("options", [{}, {"group": "speaker"}, {"folds": 5, "validation_fold": "next"}])
@pytest.mark.parametrize("unnamed", [0, 2])
def test_nobody_is_heard_in_two_parts(tmp_path: Path, options: dict[str, object], unnamed: int) -> None:
    """Two clips without a speaker are of nobody else's group, and no reason to forget the others'."""
    speakers = [f"s{number // 6}" for number in range(120)]
    for place in range(unnamed):
        speakers[50 * place] = ""
    write_table(tmp_path, spoken(speakers))
    parts = {part: opened(tmp_path, part, **options).recordings for part in PARTS}
    heard = {part: {one.group for one in recordings} - {None} for part, recordings in parts.items()}
    assert not any(heard[one] & heard[other] for one, other in itertools.combinations(PARTS, 2))
    assert sorted(one.id for recordings in parts.values() for one in recordings) == sorted(
        f"clips/{number}.wav" for number in range(120)
    )
    assert sum(one.group is None for recordings in parts.values() for one in recordings) == unnamed
    for recordings in parts.values():
        assert set(Counter(one.labels for one in recordings)) == {(0,), (1,), (2,)}


def test_an_empty_cell_of_the_column_group_is_not_filled_from_another(tmp_path: Path) -> None:
    """A speaker may be called as a group is."""
    write_table(tmp_path, rows("path,label,group,speaker", 8, "{c},,G1").replace(",,G1", ",G1,S", 3))
    groups = [one.group for one in opened(tmp_path, "test", test_share=1).recordings]
    assert groups == ["G1"] * 3 + [None] * 5
    groups = [one.group for one in opened(tmp_path, "test", test_share=1, group="speaker").recordings]
    assert groups == ["S"] * 3 + ["G1"] * 5


def test_many_labels_of_few_clips_are_split_by_speaker(tmp_path: Path) -> None:
    """25 speakers say 40 words, five clips of each word: fewer than the folds that groups are dealt into."""
    lines = [f"clips/{number}.wav,w{number % 40},s{number % 25}" for number in range(200)]
    write_table(tmp_path, "\n".join(["path,label,speaker", *lines]) + "\n")
    parts = {part: opened(tmp_path, part).recordings for part in PARTS}
    heard = [{one.group for one in recordings} for recordings in parts.values()]
    assert sum(map(len, heard)) == 25 and [len(recordings) for recordings in parts.values()] == [160, 24, 16]


def test_groups_are_held_out_by_about_the_share_that_is_asked_for(tmp_path: Path) -> None:
    write_table(tmp_path, spoken([f"s{number // 6}" for number in range(120)]))
    sizes = [len(opened(tmp_path, part, validation_share=0.1, test_share=0.3)) for part in PARTS]
    assert sizes == [72, 12, 36]
    again = ids(opened(tmp_path, "test", test_share=0.3))
    assert (
        again == ids(opened(tmp_path, "test", test_share=0.3)) != ids(opened(tmp_path, "test", test_share=0.3, seed=1))
    )


@pytest.mark.parametrize(
    ("speakers", "words"),
    [
        (["me"] * 12, "all 12 clips to be split are of one group me; say yourself"),
        (
            ["x", "y", "z"] * 8,
            r"1 label has no clip left to train on, e\.g\. that of clips/\d\.wav, whose clips are of one",
        ),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(tmp_path: Path, speakers: list[str], words: str) -> None:
    write_table(tmp_path, spoken(speakers))
    with pytest.raises(DataError, match=words):
        opened(tmp_path)


def test_clips_are_dealt_out_into_folds_where_no_column_says_it(tmp_path: Path) -> None:
    write_table(tmp_path, rows("path,label,voice", 30, "{c},{n}"))
    tested = [ids(opened(tmp_path, "test", folds=3, fold=fold)) for fold in (1, 2, 3)]
    assert sorted(name for names in tested for name in names) == sorted(f"clips/{n}.wav" for n in range(30))
    labels = [recording.labels for recording in opened(tmp_path, "test", folds=3).recordings]
    assert Counter(labels) in ({(0,): 3, (1,): 3, (2,): 4}, {(0,): 3, (1,): 4, (2,): 3}, {(0,): 4, (1,): 3, (2,): 3})
    for options, words in (
        ({"folds": 3, "group": "speaker"}, "group is 'speaker'; allowed: a column of .*: path, label, voice"),
        ({"folds": 31, "group": "voice"}, "folds is 31; allowed: 2 to 10"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            opened(tmp_path, **options)
