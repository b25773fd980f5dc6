"""Damages SQLite files where it hurts: pages, cells, chains and rows, by what each byte means.

Owns: the anatomy of a file as the format documents it (https://sqlite.org/fileformat2.html), and what may be
done to each part of it. Does no I/O, and knows no tables but ``sqlite_master``.
"""

import itertools
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.support.mutations import INPUTS, SEED

__all__ = ["Anatomy", "damaged_databases"]

_HEADER = 100
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_KINDS = (_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE)
_HEADER_FIELDS = (
    *((16, 2), (18, 1), (19, 1), (20, 1), (21, 1), (22, 1), (23, 1), (28, 4), (32, 4), (36, 4)),
    *((40, 4), (44, 4), (48, 4), (52, 4), (56, 4), (60, 4), (64, 4), (68, 4), (92, 4), (96, 4)),
)
_ODD_BYTES = (0, 1, 2, 5, 8, 9, 10, 13, 0x7F, 0x80, 0x81, 0xFF)
_ODD_VALUES = (
    *(b"", b"/", b"..", b".", b"\0", b"\xff\xfe", b"-1", b"9223372036854775807", b"-9223372036854775808"),
    *(b"1e308", b"NaN", b"\x01\xff\xff\xff", b"\x01\x01\x05\x00user.", b"/layers", b"0" * 40, b"f" * 40),
    *(b"ff" * 20 + b"-rmd160", b"2.5", b"1.0", b"table", b"tag\x1b[2J", b"\x7f" * 8, b"\xff" * 8),
)
_SCHEMA_WORDS = (
    *(
        (b"INTEGER", b"AS (1)"),
        (b"TEXT", b"BLOB"),
        (b"TEXT", b"REAL"),
        (b"TABLE", b"VIEW"),
        (b"key", b"k\xe9y"),
    ),
    *((b"PRIMARY KEY", b"CHECK"), (b"CREATE TABLE", b"CREATE VIEW"), (b"INDEX", b"TRIGGER"), (b"(", b"AS(")),
    *((b"value", b"v"), (b"hash", b"rowid"), (b"CONSTRAINT", b""), (b"name TEXT", b"name TEXT COLLATE x")),
    *((b"CREATE TABLE", b"CREATE VIRTUAL TABLE"), (b"size INTEGER", b"size INTEGER DEFAULT (zeroblob(1e9))")),
)
_SCHEMA_TEXTS = (
    b"CREATE VIEW tags AS SELECT 1",
    b"CREATE TABLE catalog(md5path_1)",
    b"CREATE TABLE properties(key,value) WITHOUT ROWID",
    b"CREATE TRIGGER t AFTER INSERT ON tags BEGIN SELECT 1; END",
    b"CREATE TABLE tags(name,hash AS(hex(zeroblob(9e8))))",
    b"CREATE INDEX i ON catalog(abs(mode))",
)


class Cell(NamedTuple):
    """Where the parts of a cell are; ``spans``: of each value its serial type's place, its own, its size."""

    page: int
    start: int
    numbers: tuple[int, ...]
    """Places of the payload's size, the row number, and the size of the record's header."""
    spans: tuple[tuple[int, int, int], ...]
    overflow: int
    """Place of the overflow chain's first page number; 0 without one."""


class Anatomy:
    """A sound file, taken apart; ``damage`` gives one that is not."""

    def __init__(self, good: bytes) -> None:
        self.good = good
        self._page_size = int.from_bytes(good[16:18]) % 65535 or 65536
        self._usable = self._page_size - good[20]
        self._count = len(good) // self._page_size
        self._heads: list[int] = []
        self._slots: list[int] = []
        self._children: list[int] = []
        self._chains: list[int] = []
        self._cells: list[Cell] = []
        for page in range(self._count):
            self._take_apart(page)
        self._trunks = self._free_list()
        sizes: dict[int, list[tuple[int, int, int]]] = {}
        for span in itertools.chain.from_iterable(cell.spans for cell in self._cells):
            sizes.setdefault(span[2], []).append(span)
        self._equal_values = [spans for size, spans in sizes.items() if size]
        self._schema = [cell for cell in self._cells if cell.page in self._schema_pages() and cell.spans]

    # Taking apart

    def _take_apart(self, page: int) -> None:
        """Find the parts of a b-tree page; a page of any other kind rarely looks like one."""
        base = page * self._page_size
        head = base + (_HEADER if page == 0 else 0)
        kind, first, count, content = struct.unpack_from(">BHHH", self.good, head)
        if kind not in _KINDS or content > self._page_size or first > self._page_size:
            return
        size = 12 if kind in {_INTERIOR_INDEX, _INTERIOR_TABLE} else 8
        slots = range(head + size, head + size + 2 * count, 2)
        if slots.stop > base + self._page_size:
            return
        self._heads.append(head)
        self._slots += slots
        if size == 12:
            self._children.append(head + 8)
        for slot in slots:
            start = base + int.from_bytes(self.good[slot : slot + 2])
            if start + 5 <= base + self._page_size:
                self._cells.append(self._cell(kind, page, start))

    def _cell(self, kind: int, page: int, start: int) -> Cell:
        at, numbers = start, []
        if kind in {_INTERIOR_INDEX, _INTERIOR_TABLE}:
            self._children.append(at)
            at += 4
        numbers.append(at)
        payload, at = self._varint(at)
        if kind == _LEAF_TABLE:
            numbers.append(at)
            _, at = self._varint(at)
        if kind == _INTERIOR_TABLE:
            return Cell(page, start, tuple(numbers), (), 0)
        most = self._usable - 35 if kind == _LEAF_TABLE else (self._usable - 12) * 64 // 255 - 23
        overflow = 0
        if payload > most:
            least = (self._usable - 12) * 32 // 255 - 23
            local = least + (payload - least) % (self._usable - 4)
            overflow = at + (local if local <= most else least)
            self._follow(overflow)
        numbers.append(at)
        header, next_type = self._varint(at)
        value, spans, end = at + header, [], overflow or (page + 1) * self._page_size
        while next_type < at + header and value <= len(self.good):
            place = next_type
            serial, next_type = self._varint(place)
            size = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[serial] if serial < 12 else (serial - 12) // 2
            spans.append((place, value, max(0, min(size, end - value))))
            value += size
        return Cell(page, start, tuple(numbers), tuple(spans), overflow)

    def _varint(self, at: int) -> tuple[int, int]:
        """A number, and where it ends."""
        value = 0
        for end in range(at, min(at + 8, len(self.good))):
            value = value << 7 | self.good[end] & 0x7F
            if self.good[end] < 0x80:
                return value, end + 1
        return value, at + 9

    def _follow(self, place: int) -> None:
        for _ in range(self._count):
            self._chains.append(place)
            page = int.from_bytes(self.good[place : place + 4])
            if not 0 < page <= self._count:
                return
            place = (page - 1) * self._page_size

    def _free_list(self) -> list[int]:
        """The places of all page numbers and counts in the list of free pages."""
        places, trunk = [32], int.from_bytes(self.good[32:36])
        while 0 < trunk <= self._count and len(places) < 1000:
            base = (trunk - 1) * self._page_size
            leaves = int.from_bytes(self.good[base + 4 : base + 8])
            places += range(base, base + 8 + 4 * leaves, 4)
            trunk = int.from_bytes(self.good[base : base + 4])
        return places

    def _schema_pages(self) -> set[int]:
        """The first page, and the leaves below it."""
        below = {
            int.from_bytes(self.good[place : place + 4]) - 1
            for place in self._children
            if place < self._page_size
        }
        return {0, *below}

    # Damaging

    def damage(self, chance: random.Random) -> bytes:
        """Another file, in which something is wrong; rarely many things."""
        data = bytearray(self.good)
        ways = _GENTLE if chance.random() < 0.4 else _WAYS
        while data == self.good:
            for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
                chance.choice(ways)(self, data, chance)
        return bytes(data)

    def _page_number(self, chance: random.Random) -> bytes:
        """Some page, mostly one that is there."""
        odd = (0, 1, 2, self._count, self._count + 1, 2**31, 2**32 - 1)
        number = chance.choice(odd) if chance.random() < 0.3 else chance.randint(1, self._count)
        return number.to_bytes(4)

    def _file_header(self, data: bytearray, chance: random.Random) -> None:
        place, size = chance.choice(_HEADER_FIELDS)
        _poke(data, place, chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size))))
        if chance.random() < 0.3:  # the page count counts only if these are equal
            _poke(data, 24, bytes(data[92:96]))

    def _page_header(self, data: bytearray, chance: random.Random) -> None:
        head = chance.choice(self._heads)
        if chance.random() < 0.3:
            _poke(data, head, bytes((chance.choice((*_KINDS, 0, 1, 15)),)))
        else:
            number = chance.choice((0, 1, 4, self._page_size - 1, 65535, chance.randrange(65536)))
            _poke(data, head + chance.choice((1, 3, 5, 7)), number.to_bytes(2))

    def _cell_pointer(self, data: bytearray, chance: random.Random) -> None:
        slot, other = chance.choice(self._slots), chance.choice(self._slots)
        number = chance.randrange(self._page_size).to_bytes(2)
        _poke(data, slot, bytes(data[other : other + 2]) if chance.random() < 0.6 else number)

    def _child(self, data: bytearray, chance: random.Random) -> None:
        _poke(data, chance.choice(self._children or [self._heads[0] + 8]), self._page_number(chance))

    def _fan_out(self, data: bytearray, chance: random.Random) -> None:
        """One page, maybe the parent, in the place of all children of a page."""
        page = chance.choice(self._children or [0]) // self._page_size
        number = (page + 1).to_bytes(4) if chance.random() < 0.5 else self._page_number(chance)
        for place in self._children:
            if place // self._page_size == page:
                _poke(data, place, number)

    def _cell_number(self, data: bytearray, chance: random.Random) -> None:
        place = chance.choice(chance.choice(self._cells).numbers)
        _poke(data, place, chance.choice((bytes((chance.choice(_ODD_BYTES),)), b"\xff" * 9, b"\x81\x00")))

    def _serial_type(self, data: bytearray, chance: random.Random) -> None:
        spans = chance.choice(self._cells).spans
        if spans:
            serial = chance.randrange(128) if chance.random() < 0.8 else 0x80 | chance.randrange(128)
            _poke(data, chance.choice(spans)[0], bytes((serial,)))

    def _same_size_type(self, data: bytearray, chance: random.Random) -> None:
        """Another type of a value that leaves the file sound."""
        spans = chance.choice(self._cells).spans
        if spans:
            place, _, size = chance.choice(spans)
            kinds = {0: (0, 8, 9, 12, 13), 1: (1, 14, 15), 2: (2, 16, 17), 4: (4, 20, 21), 6: (5, 24, 25)}
            kinds[8] = (6, 7, 28, 29)
            if size in kinds or 12 <= self.good[place] < 0x80:
                _poke(data, place, bytes((chance.choice(kinds.get(size, (self.good[place] ^ 1,))),)))

    def _value(self, data: bytearray, chance: random.Random) -> None:
        spans = chance.choice(self._cells).spans
        if spans:
            _, place, size = chance.choice(spans)
            value = chance.choice(_ODD_VALUES) if chance.random() < 0.5 else chance.randbytes(size)
            if chance.random() < 0.5:
                value = value.ljust(size, chance.choice((b"\0", b" ", b"0", b"\xff")))
            _poke(data, place, value[:size])

    def _swap_values(self, data: bytearray, chance: random.Random) -> None:
        """A value in the place of another one, of as many bytes."""
        spans = chance.choice(self._equal_values)
        (_, to, size), (_, source, _) = chance.choice(spans), chance.choice(spans)
        _poke(data, to, self.good[source : source + size])

    def _overflow(self, data: bytearray, chance: random.Random) -> None:
        if self._chains:
            other = chance.choice(self._chains)
            number = bytes(data[other : other + 4]) if chance.random() < 0.5 else self._page_number(chance)
            _poke(data, chance.choice(self._chains), number)

    def _free_pages(self, data: bytearray, chance: random.Random) -> None:
        _poke(data, chance.choice(self._trunks), self._page_number(chance))
        if chance.random() < 0.3:
            _poke(data, 32, self._page_number(chance) + chance.randrange(self._count).to_bytes(4))

    def _whole_page(self, data: bytearray, chance: random.Random) -> None:
        size = self._page_size
        to, source = (chance.randrange(self._count) * size for _ in range(2))
        page = bytes(data[source : source + size])
        if chance.random() < 0.4:
            _poke(data, source, bytes(data[to : to + size]))
        _poke(data, to, chance.choice((page, page, page, bytes(size), chance.randbytes(size))))

    def _length(self, data: bytearray, chance: random.Random) -> None:
        if chance.random() < 0.5:
            del data[chance.randrange(len(data) + 1) :]
        else:
            data += data[: chance.randrange(4) * self._page_size] + bytes(chance.randrange(self._page_size))

    def _schema_row(self, data: bytearray, chance: random.Random) -> None:
        cell = chance.choice(self._schema)
        if len(cell.spans) != 5:  # a column of an index, or a page that only looks like the schema's
            return
        kind, name, _, root, sql = cell.spans
        match chance.randrange(4):
            case 0:
                _poke(data, root[1], bytes((chance.choice((0, 1, 2, chance.randrange(256))),)))
            case 1:
                other = chance.choice(self._schema).spans[1]
                _poke(data, name[1], self.good[other[1] : other[1] + other[2]][: name[2]].ljust(name[2]))
            case 2:
                _poke(data, kind[1], chance.choice((b"index", b"table", b"view ", b"trigger"))[: kind[2]])
            case _:
                text = bytes(data[sql[1] : sql[1] + sql[2]])
                before, after = chance.choice(_SCHEMA_WORDS)
                text = text.replace(before, after) if chance.random() < 0.7 else chance.choice(_SCHEMA_TEXTS)
                _poke(data, sql[1], text[: sql[2]].ljust(sql[2]))

    def _any_bytes(self, data: bytearray, chance: random.Random) -> None:
        for _ in range(chance.choice((1, 2, 20))):
            place = chance.randrange(len(data) or 1)
            byte = chance.choice((chance.choice(_ODD_BYTES), chance.randrange(256)))
            _poke(data, place, bytes((byte,)))


_GENTLE: tuple[Callable[[Anatomy, bytearray, random.Random], None], ...] = (
    Anatomy._same_size_type,
    Anatomy._value,
    Anatomy._swap_values,
)
_WAYS: tuple[Callable[[Anatomy, bytearray, random.Random], None], ...] = (
    *_GENTLE,
    Anatomy._file_header,
    Anatomy._page_header,
    Anatomy._cell_pointer,
    Anatomy._child,
    Anatomy._fan_out,
    Anatomy._cell_number,
    Anatomy._serial_type,
    Anatomy._overflow,
    Anatomy._free_pages,
    Anatomy._whole_page,
    Anatomy._length,
    Anatomy._schema_row,
    Anatomy._any_bytes,
)


def damaged_databases(good: Sequence[bytes], count: int = INPUTS) -> Iterator[bytes]:
    """``count`` files, each with other damage."""
    chance = random.Random(SEED)
    anatomies = [Anatomy(each) for each in good]
    for _ in range(count):
        yield chance.choice(anatomies).damage(chance)


def _poke(data: bytearray, place: int, value: bytes) -> None:
    """Overwrite, never beyond the end."""
    value = value[: max(0, len(data) - place)]
    data[place : place + len(value)] = value
