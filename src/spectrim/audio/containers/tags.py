"""Tags that programs put before and after the sound of any format: ID3v2, ID3v1, APE, Lyrics3."""

from __future__ import annotations

from spectrim.audio.plan import Content


def after_id3v2(content: Content, at: int = 0) -> int:
    """Where the sound begins: after the ID3v2 tags at ``at``, if there are any."""
    while content[at : at + 3] == b"ID3":
        header = content[at : at + 10]
        if len(header) < 10 or max(header[6:10]) >= 0x80:
            return at
        size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
        at += 10 + size + (10 if header[5] & 0x10 else 0)
    return at


def without_tail(content: Content, end: int) -> int:
    """Where the sound ends: before the ID3v1, APE and Lyrics3 tags that end at ``end``, if there are any."""
    while True:
        before = _tail(content, end)
        if before is None:
            return end
        end = before


def _tail(content: Content, end: int) -> int | None:
    """Where the last tag begins; None without one."""
    if end >= 128 and content[end - 128 : end - 125] == b"TAG":
        extended = end - 128 - 227
        return extended if extended >= 0 and content[extended : extended + 4] == b"TAG+" else end - 128
    if end >= 32 and content[end - 32 : end - 24] == b"APETAGEX":
        size = int.from_bytes(content[end - 20 : end - 16], "little")
        flags = int.from_bytes(content[end - 12 : end - 8], "little")
        start = end - size - (32 if flags & 0x80000000 else 0)
        return start if size >= 32 and start >= 0 else None
    if end >= 15 and content[end - 9 : end] == b"LYRICS200":
        digits = bytes(content[end - 15 : end - 9])
        if digits.isdigit() and end - 15 - int(digits) >= 0:
            return end - 15 - int(digits)
    return None
