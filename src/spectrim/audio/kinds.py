"""What kind of file it is, by its first bytes, and who reads the structure of that kind."""

from __future__ import annotations

import struct
from collections.abc import Callable

from spectrim.audio.containers import asf, boxes, chunks, flac, frames, matroska, mpeg, ogg
from spectrim.audio.containers.tags import after_id3v2
from spectrim.audio.plan import Content, Damage, Plan, Stretch

PLANNERS: dict[str, Callable[[Content, int], Plan]] = {
    "ogg": ogg.plan,
    "flac": flac.plan,
    "riff": chunks.plan_riff,
    "w64": chunks.plan_w64,
    "caf": chunks.plan_caf,
    "aiff": chunks.plan_aiff,
    "au": chunks.plan_au,
    "nist": chunks.plan_nist,
    "voc": chunks.plan_voc,
    "mp4": boxes.plan,
    "matroska": matroska.plan,
    "asf": asf.plan,
    "amr": frames.plan_amr,
    "ac3": frames.plan_ac3,
    "adts": frames.plan_adts,
    "mpeg": mpeg.plan,
}
"""Kind → what reads its structure."""

MAGIC = (
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"caff", "caf"),
    (0, b".snd", "au"),
    (0, b"dns.", "au"),
    (0, b"NIST_1A", "nist"),
    (0, b"Creative Voice File\x1a", "voc"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, asf.HEADER, "asf"),
    (0, b"#!AMR\n", "amr"),
    (0, b"#!AMR-WB\n", "amr"),
    (0, b"\x0bw", "ac3"),
    (8, b"WAVE", "riff"),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    *((4, kind, "mp4") for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
)
"""(place, bytes there, kind)."""

BEGINNINGS = {"riff": (b"RIFF", b"RIFX", b"RF64", b"BW64"), "aiff": (b"FORM",)}
"""Kind → the first four bytes, where those of `MAGIC` stand elsewhere."""

NOT_READ = (
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b".RMF", "RealMedia"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"MThd", "MIDI, which is notes and not sound"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"\x7f\xfe\x80\x01", "DTS"),
    (8, b"AVI ", "AVI"),
    (0, b"\0\0\x01\xba", "an MPEG programme stream"),
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file with git lfs pull"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
)
"""(place, bytes there, name) of what is recognised only to name it."""

MPEG_ENDINGS = (".mp3", ".mp2", ".mp1", ".mpga", ".mpa")


def kind_of(content: Content, end: int, suffix: str) -> str | None:
    """The key in `PLANNERS` for a file; None for what only libsndfile may know."""
    start = after_id3v2(content)
    for place, magic, kind in MAGIC:
        begins = kind not in BEGINNINGS or content[:4] in BEGINNINGS[kind]
        if begins and content[place : place + len(magic)] == magic:
            return kind
    if 0 < start < end and content[start : start + 4] == b"fLaC":
        return "flac"
    if frames.adts_frame(content, start) is not None:
        return "adts"
    if start > 0 or suffix in MPEG_ENDINGS or mpeg.begins(content, start, end):
        return "mpeg"
    return None


def plan_for(content: Content, end: int, suffix: str) -> Plan:
    """Say how a file is to be decoded.

    Args:
        content: all of it.
        end: its size in bytes.
        suffix: of its name, in lower case.

    Raises:
        Damage: it is cut, damaged, or of a kind that is not read.
    """
    kind = kind_of(content, end, suffix)
    if kind is not None:
        try:
            return PLANNERS[kind](content, end)
        except (struct.error, LookupError, ValueError, ArithmeticError, RecursionError) as error:
            raise Damage(f"damaged: its structure cannot be read ({error})") from error
    for place, magic, name in NOT_READ:
        if content[place : place + len(magic)] == magic:
            raise Damage(f"cannot be read as audio: it is {name}")
    return Plan((Stretch(0, end),))
