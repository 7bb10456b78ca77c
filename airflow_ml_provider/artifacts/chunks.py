# SPDX-License-Identifier: Apache-2.0
"""
Values in pieces, so that versions of one name share what did not change.

A codec cuts a value where its content says so. A version stores those pieces that the version saved last
under its name does not have, in one object, a pack. Neighbours are encoded together, in blocks: short pieces
are shared better, and long runs are encoded in less time. The pack ends with the recipe: where each piece
lies, in this pack or in an earlier one. The version's digest is a hash over the hashes of the pieces, so that
it names the content however it is packed.

``heads/<name>`` keeps the recipe of the version saved last, for the next save to compare with. It is a hint:
signed, but replaced without any order between writers, and a save looks whether the packs that it is about to
refer to are there and whole.

A version is read from few packs, and few bytes of them are not its own. Where more would be needed, the
pieces of one pack are stored once more, the way log-structured merge trees bound their reads (O'Neil et al.,
1996).
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_ml_provider.artifacts import encodings, keys
from airflow_ml_provider.artifacts.digest import digest_of
from airflow_ml_provider.artifacts.objects import as_bytes, at_once
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
)

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore, Source
    from airflow_ml_provider.artifacts.signing import Signer

# Beside its own pack, a version is read from so many at most.
MAX_EARLIER_PACKS = 9
# Of the bytes that are read for a version so many are needed, at least.
MIN_USE = 2 / 3

# The recipe of a table of some millions of rows is within so many bytes of a pack's end.
END_BYTES = 256 << 10

_HEAD_KIND = "ml-head/v1"
_MAGIC = b"AMLPACK1"
_RECIPE_MAGIC = b"AMLPACK2"
_TOP = struct.Struct("<8sQIII")  # magic, length of the header, packs, blocks, pieces
_PACK = struct.Struct("<32sQ")  # hash, length
_BLOCK = struct.Struct("<QIQQ")  # length, pack, offset and length there
_PIECE = struct.Struct("<32sQIQ")  # hash, length, block, offset in it
# Where each piece is a block.
_EARLIER_TOP = struct.Struct("<8sQII")
_EARLIER_PIECE = struct.Struct("<32sQIQQ")  # hash, length, pack, offset and length there
_FOOT = struct.Struct("<Q8s")  # length of the recipe, magic
_OWN = bytes(32)
# Neighbours are encoded together up to here: the processor's cache holds them.
_BLOCK_BYTES = 512 << 10
_MAX_BLOCK_BYTES = 16 << 20
_MAX_RECIPE_BYTES = 256 << 20
_ALIGNED = 8

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Cut:
    """
    A value in pieces, as a codec gives it.

    :param header: What reading needs beside the pieces; part of the content.
    :param count: How many pieces there are.
    :param size_bytes: What it takes in memory, about.
    :param parts: Returns the bytes of neighbouring pieces, by the number of the first and their count, as
        parts to join; the same bytes on each call, from any thread. Parts are not copied, and must not change
        before the value is stored. A part that is numbers has their format (:class:`memoryview`), so that it
        can be stored as smaller ones.
    :param joins: Whether a piece and the one before it may be asked for together. They are one part then.
    :param is_long: Whether a piece takes a compressor more time than it takes the interpreter.
    :param schema: What the value looks like, as small JSON.
    :param preview: Its beginning, as small JSON.
    :param type: Name of the value's type.
    """

    header: bytes
    count: int
    size_bytes: int
    parts: Callable[[int, int], list[memoryview]]
    joins: Callable[[int], bool] = lambda _: False
    is_long: Callable[[int], bool] = lambda _: True
    schema: dict[str, Any] | None = None
    preview: Any = None
    type: str = ""


class Pack(NamedTuple):
    """An object that holds pieces; the digest is empty for the one that holds the recipe."""

    digest: str
    size_bytes: int


class Block(NamedTuple):
    """
    Where pieces lie that were encoded together.

    :param length: Of their bytes.
    :param pack: Number of the pack; 0 is the one that holds the recipe.
    :param start: Offset in the pack.
    :param stored: Length there: encoded, or as it is if the two lengths are equal.
    """

    length: int
    pack: int
    start: int
    stored: int


class Piece(NamedTuple):
    """
    Where a piece lies.

    :param digest: Hash of its bytes.
    :param length: Of its bytes.
    :param offset: In the bytes of the block, before they were encoded.
    """

    digest: bytes
    length: int
    block: Block
    offset: int

    @property
    def stored(self) -> int:
        """Its share of what the block takes."""
        return -(-self.block.stored * self.length // self.block.length)


@dataclass(frozen=True)
class Recipe:
    """How to make a value out of packs. ``packs[0]`` stands for the pack that holds the recipe."""

    header: bytes
    packs: tuple[Pack, ...]
    pieces: tuple[Piece, ...]

    def content(self) -> str:
        """Hash of what is made, however it is packed."""
        return _content(self.header, [(piece.digest, piece.length) for piece in self.pieces])

    @property
    def size_bytes(self) -> int:
        """Bytes that all different pieces take."""
        return sum({piece.digest: piece.stored for piece in self.pieces}.values())

    @property
    def unpacked_bytes(self) -> int:
        """Length of all pieces, and of the header."""
        return len(self.header) + sum(piece.length for piece in self.pieces)

    def to_bytes(self) -> bytes:
        header = encodings.zstd(self.header)
        packs = (
            _PACK.pack(bytes.fromhex(keys.digest_hex(pack.digest)) if pack.digest else _OWN, pack.size_bytes)
            for pack in self.packs
        )
        blocks: dict[Block, int] = {}
        for piece in self.pieces:
            blocks.setdefault(piece.block, len(blocks))
        return b"".join(
            [
                _TOP.pack(_RECIPE_MAGIC, len(header), len(self.packs), len(blocks), len(self.pieces)),
                header,
                *packs,
                *(_BLOCK.pack(*block) for block in blocks),
                *(
                    _PIECE.pack(digest, length, blocks[block], offset)
                    for digest, length, block, offset in self.pieces
                ),
            ]
        )

    @classmethod
    def from_bytes(cls, data: memoryview) -> Recipe:
        """
        Read a recipe.

        :raises ValueError: if it is none, or names a place outside of its packs.
        """
        try:
            is_earlier = data[:8] == _MAGIC
            top = _EARLIER_TOP if is_earlier else _TOP
            magic, header_length, pack_count, *counts = top.unpack_from(data)
            if magic not in (_MAGIC, _RECIPE_MAGIC):
                raise ValueError("it does not begin as a recipe does")
            block_count, piece_count = (0, *counts) if is_earlier else counts
            after_header = top.size + header_length
            after_packs = after_header + pack_count * _PACK.size
            after_blocks = after_packs + block_count * _BLOCK.size
            size = piece_count * (_EARLIER_PIECE if is_earlier else _PIECE).size
            if len(data) != after_blocks + size or pack_count < 1:
                raise ValueError("its length is not what it says")
            header = bytes(encodings.expand(data[top.size : after_header], None))
            packs = tuple(
                Pack("" if digest == _OWN else f"blake3:{digest.hex()}", size)
                for digest, size in _PACK.iter_unpack(data[after_header:after_packs])
            )
            if is_earlier:
                pieces = tuple(
                    Piece(digest, length, Block(length, *place), 0)
                    for digest, length, *place in _EARLIER_PIECE.iter_unpack(data[after_blocks:])
                )
                blocks = [piece.block for piece in pieces]
            else:
                blocks = [Block(*row) for row in _BLOCK.iter_unpack(data[after_packs:after_blocks])]
                pieces = tuple(
                    Piece(digest, length, blocks[number], offset)
                    for digest, length, number, offset in _PIECE.iter_unpack(data[after_blocks:])
                )
        except (struct.error, IndexError) as exc:
            raise ValueError(str(exc)) from exc
        for block in blocks:
            if block.pack >= pack_count or block.start + block.stored > packs[block.pack].size_bytes:
                raise ValueError("a block lies outside of its pack")
        for piece in pieces:
            length = piece.block.length
            if piece.offset + piece.length > length or not piece.length:
                raise ValueError("a piece lies outside of its block")
            if piece.length != length > _MAX_BLOCK_BYTES:
                raise ValueError(f"pieces were encoded together to {length:,} bytes")
        return cls(header, packs, pieces)


@dataclass(frozen=True)
class Written:
    """
    A value that is stored.

    :param parts: Digests of its packs, the one with the recipe first.
    :param unpacked_bytes: Length of all pieces.
    :param head: What to leave for the next save; None if it is there already.
    """

    digest: str
    size_bytes: int
    parts: tuple[str, ...]
    unpacked_bytes: int
    head: bytes | None


class Pieces:
    """
    A stored value in pieces, as a codec reads it.

    Each piece that is read is compared with its hash, whatever else its pack holds.
    """

    def __init__(
        self, recipe: Recipe, packs: Sequence[Source], keys_of: Sequence[str], whose: str, *, verify: bool
    ) -> None:
        self.header = recipe.header
        self.count = len(recipe.pieces)
        self._recipe = recipe
        self._packs = packs
        self._keys = keys_of
        self._whose = whose
        self._verify = verify

    def release(self) -> None:
        """Let the packs go; nothing can be read after it."""
        for pack in self._packs:
            pack.close()
        self._packs = ()

    def prepare(self, numbers: Iterable[int]) -> None:
        """Fetch from a bucket at once what will be read."""
        ranges: list[set[tuple[int, int]]] = [set() for _ in self._packs]
        for number in numbers:
            _, length, block, offset = self._recipe.pieces[number]
            if block.stored == block.length:
                ranges[block.pack].add((block.start + offset, length))
            else:
                ranges[block.pack].add((block.start, block.stored))
        at_once(lambda pair: pair[0].prepare(pair[1]), list(zip(self._packs, ranges, strict=True)))

    def length(self, number: int) -> int:
        """Bytes of a piece."""
        return self._recipe.pieces[number].length

    def read(self, number: int) -> memoryview:
        """
        Return the bytes of a piece; from any thread.

        :raises ArtifactCorruptError: if they are not those that were written.
        """
        made = memoryview(bytearray(self._recipe.pieces[number].length))
        self.read_into(number, 1, lambda *_: [made])
        return made

    def read_into(self, first: int, count: int, targets: Callable[[int, int], list[memoryview]]) -> None:
        """
        Write the bytes of neighbouring pieces to where they belong; from any thread.

        :param targets: Returns where some of these pieces belong, by the number of the first and their count:
            memory for each part that they were made of, of one byte an item.
        :raises ArtifactCorruptError: if they are not those that were written, or as many.
        """
        pieces = self._recipe.pieces[first : first + count]
        at = 0
        whole: tuple[Block, memoryview] | None = None
        while at < count:
            start = pieces[at]
            until, end = at + 1, start.offset + start.length
            while until < count and pieces[until].block == start.block and pieces[until].offset == end:
                end += pieces[until].length
                until += 1
            try:
                whole = self._read_run(start.block, start.offset, targets(first + at, until - at), whole)
                # Of what was encoded not every damage shows as one.
                if self._verify or start.block.stored != start.block.length:
                    for number in range(at, until):
                        if _hash_of(targets(first + number, 1)) != pieces[number].digest:
                            raise ValueError("its hash is another one")
            except ValueError as exc:
                raise ArtifactCorruptError(
                    f"{self._whose} is damaged: {self._keys[start.block.pack]}: piece {first + at}: {exc}; "
                    "delete that object and re-run what wrote it"
                ) from exc
            at = until

    def _read_run(
        self,
        block: Block,
        offset: int,
        targets: list[memoryview],
        whole: tuple[Block, memoryview] | None,
    ) -> tuple[Block, memoryview] | None:
        """Read a part of a block; returns the block, decoded, where more of it may be needed."""
        pack = self._packs[block.pack]
        length = sum(target.nbytes for target in targets)
        if offset + length > block.length:
            raise ValueError("its value needs more bytes than it has")
        if block.stored == block.length:
            pack.read_into(block.start + offset, targets)
            return whole
        if length == block.length:
            encodings.decode(pack.read(block.start, block.stored), targets)
            return whole
        if whole is None or whole[0] != block:
            whole = block, memoryview(bytearray(block.length))
            encodings.decode(pack.read(block.start, block.stored), [whole[1]])
        (target,) = targets
        target[:] = whole[1][offset : offset + length]
        return whole


def write(
    objects: ObjectStore,
    signer: Signer,
    name: str,
    cut: Cut,
    put: Callable[[list[memoryview], bool], tuple[str, int]],
) -> Written:
    """
    Store the pieces of a value that the last version of ``name`` does not have.

    One request for the head, one for each earlier pack that is referred to, and those of ``put``.

    :param put: Stores a pack and returns its digest and size; told whether it could be there already.
    """
    head = _read_head(objects, signer, name)
    known = {} if head is None else {piece.digest: piece for piece in head.pieces}
    # A disk takes more bytes in less time than they take to compress well; a network does not.
    compressor = encodings.LZ4 if objects.is_local else encodings.ZSTD
    is_long: Callable[[int], bool] = cut.is_long if objects.is_local else lambda _: True

    found: list[tuple[bytes, int]] = []
    numbers: dict[bytes, int] = {}
    for number in range(cut.count):
        piece_parts = cut.parts(number, 1)
        digest = _hash_of(piece_parts)
        found.append((digest, _length(piece_parts)))
        numbers.setdefault(digest, number)
    content = _content(cut.header, found)

    def encoded(digests: Iterable[bytes]) -> dict[tuple[int, int], list[memoryview]]:
        """Encode pieces, neighbours together; returns them by the number of the first and their count."""
        runs = _runs([(numbers[digest], found[numbers[digest]][1]) for digest in digests], cut.joins)
        made = spread(
            lambda run: encodings.encode(cut.parts(*run), compressor), runs, lambda run: is_long(run[0])
        )
        return dict(zip(runs, made, strict=True))

    fresh = encoded(digest for digest in numbers if digest not in known)
    kept: list[Pack] = []
    if head is not None:
        packs = head.packs
        if content == head.content() and _there(objects, packs) == list(packs):
            parts = tuple(pack.digest for pack in packs)
            return Written(content, head.size_bytes, parts, head.unpacked_bytes, None)
        used: dict[Pack, int] = {}
        for piece in (known[digest] for digest in numbers if digest in known):
            used[packs[piece.block.pack]] = used.get(packs[piece.block.pack], 0) + piece.stored
        kept = _there(objects, _worth_keeping(used, sum(map(_length, fresh.values()))))
        gone = [
            digest for digest in numbers if digest in known and packs[known[digest].block.pack] not in kept
        ]
        fresh |= encoded(gone)
        places = {pack: 1 + number for number, pack in enumerate(kept)}
        known = {
            digest: piece._replace(block=piece.block._replace(pack=places[packs[piece.block.pack]]))
            for digest, piece in known.items()
            if packs[piece.block.pack] in places
        }

    body, own_pieces = _laid_out(fresh, found)
    known |= own_pieces
    recipe = Recipe(cut.header, (Pack("", _length(body)), *kept), tuple(known[digest] for digest, _ in found))
    text = recipe.to_bytes()
    own = Pack(*put([*body, memoryview(text), memoryview(_FOOT.pack(len(text), _MAGIC))], not kept))
    parts = (own.digest, *(pack.digest for pack in kept))
    left = _to_head(signer, name, own, text)
    return Written(content, recipe.size_bytes, parts, recipe.unpacked_bytes, left)


def _runs(pieces: Iterable[tuple[int, int]], joins: Callable[[int], bool]) -> list[tuple[int, int]]:
    """
    Put neighbours together.

    :param pieces: Numbers, ascending, and lengths.
    :returns: Numbers of first ones, and how many follow each other.
    """
    runs: list[tuple[int, int]] = []
    size = 0
    for number, length in pieces:
        size += length
        if runs and number == sum(runs[-1]) and size <= _BLOCK_BYTES and joins(number):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
            size = length
    return runs


def _laid_out(
    fresh: dict[tuple[int, int], list[memoryview]], found: Sequence[tuple[bytes, int]]
) -> tuple[list[memoryview], dict[bytes, Piece]]:
    """Put blocks into a pack one after the other; returns what it consists of, and where each piece lies."""
    pieces: dict[bytes, Piece] = {}
    body: list[memoryview] = []
    end = 0
    for first, count in sorted(fresh):
        parts = fresh[first, count]
        if gap := -end % _ALIGNED:
            body.append(memoryview(bytes(gap)))
            end += gap
        stored = _length(parts)
        block = Block(sum(length for _, length in found[first : first + count]), 0, end, stored)
        offset = 0
        for digest, length in found[first : first + count]:
            pieces[digest] = Piece(digest, length, block, offset)
            offset += length
        body += parts
        end += stored
    return body, pieces


def read(
    parts: Sequence[str],
    digest: str,
    packs: Sequence[Source],
    whose: str,
    max_bytes: int | None = None,
    *,
    verify: bool = True,
) -> Pieces:
    """
    Find the pieces of a value in its packs.

    :param parts: Digests of the packs, the one with the recipe first.
    :param digest: Of the content.
    :param whose: Name of the value, for errors.
    :param max_bytes: Of all pieces together; nothing is unpacked where there are more.
    :param verify: Compare each piece that is read with its hash.
    :raises ArtifactCorruptError: if the packs do not make what ``digest`` names.
    """
    own = packs[0]
    keys_of = [keys.blob_key(part) for part in parts]
    try:
        if own.size_bytes < _FOOT.size:
            raise ValueError("it is too short to be a pack")
        length, magic = _FOOT.unpack(own.read(own.size_bytes - _FOOT.size, _FOOT.size))
        start = own.size_bytes - _FOOT.size - length
        if magic != _MAGIC or start < 0:
            raise ValueError("it does not end as a pack does")
        recipe = Recipe.from_bytes(own.read(start, length))
        named = [pack.digest for pack in recipe.packs[1:]]
        if named != list(parts[1:]) or recipe.packs[0].size_bytes != start:
            raise ValueError("its recipe is that of another version")
        for pack, key, found in zip(recipe.packs[1:], keys_of[1:], packs[1:], strict=True):
            if pack.size_bytes != found.size_bytes:
                raise ValueError(f"{key} has {found.size_bytes:,} bytes in place of {pack.size_bytes:,}")
        if recipe.content() != digest:
            raise ValueError(f"it makes {recipe.content()} in place of {digest}")
        if max_bytes is not None and recipe.unpacked_bytes > max_bytes:
            raise ValueError(f"it unpacks to {recipe.unpacked_bytes:,} bytes, and {max_bytes:,} are allowed")
    except ValueError as exc:
        raise ArtifactCorruptError(f"{whose} is damaged: {keys_of[0]}: {exc}") from exc
    return Pieces(recipe, packs, keys_of, whose, verify=verify)


def most_read(size_bytes: int) -> int:
    """Bytes that no pack of a value of so many goes beyond: what it needs, what it does not, and recipes."""
    return round(size_bytes / MIN_USE) + _MAX_RECIPE_BYTES


def spread(function: Callable[[T], R], items: Iterable[T], is_long: Callable[[T], bool]) -> list[R]:
    """
    Call a function for each item, on all processors.

    :param is_long: Whether it leaves the interpreter lock alone for most of its time. The others are called
        here, one after the other: threads that take turns at the lock for some microseconds each are slower
        than one.
    """
    items = list(items)
    long = [place for place, item in enumerate(items) if is_long(item)]
    workers = min(len(long), max(1, (os.cpu_count() or 1) - 1), 8)
    if not workers or os.cpu_count() == 1:
        return [function(item) for item in items]
    found: dict[int, R] = {}
    with ThreadPoolExecutor(workers) as pool:
        # In few long stretches: handing items over one by one costs as much as the work.
        step = max(1, len(long) // (workers * 8))
        stretches = [long[start : start + step] for start in range(0, len(long), step)]
        done = [
            pool.submit(lambda some: [function(items[place]) for place in some], some) for some in stretches
        ]
        apart = set(long)
        for place, item in enumerate(items):
            if place not in apart:
                found[place] = function(item)
        # What is left when this thread has nothing else to do.
        for some, future in zip(reversed(stretches), reversed(done), strict=True):
            if future.cancel():
                found.update((place, function(items[place])) for place in some)
        for some, future in zip(stretches, done, strict=True):
            if not future.cancelled():
                found.update(zip(some, future.result(), strict=True))
    return [found[place] for place in range(len(items))]


def head_key(name: str) -> str:
    return f"heads/{keys.segment(name)}"


def _to_head(signer: Signer, name: str, pack: Pack, recipe: bytes) -> bytes:
    doc = {
        "kind": _HEAD_KIND,
        "name": name,
        "pack": pack.digest,
        "size_bytes": pack.size_bytes,
        "recipe": digest_of([memoryview(recipe)]),
    }
    return json.dumps(signer.signed(doc), separators=(",", ":")).encode("ascii") + b"\n" + recipe


def _read_head(objects: ObjectStore, signer: Signer, name: str) -> Recipe | None:
    """Return the recipe of the version saved last, its own pack named; None if there is none to be used."""
    try:
        data = memoryview(objects.get(head_key(name)))
    except ArtifactNotFoundError:
        return None
    try:
        end = bytes(data[:4096]).index(b"\n")
        doc = json.loads(bytes(data[:end]))
        signer.verify(doc)
        if doc["kind"] != _HEAD_KIND or doc["name"] != name:
            raise ValueError("it belongs to another name")
        text = data[end + 1 :]
        if digest_of([text]) != doc["recipe"]:
            raise ValueError("its recipe was edited")
        recipe = Recipe.from_bytes(text)
        keys.digest_hex(doc["pack"])
        packs = (Pack(doc["pack"], int(doc["size_bytes"])), *recipe.packs[1:])
    except (ArtifactError, ValueError, KeyError, TypeError) as exc:
        logger.warning(
            "%s/%s cannot be used: %s. The artifact %r is stored whole, and replaces it",
            objects.root,
            head_key(name),
            exc,
            name,
        )
        return None
    return Recipe(recipe.header, packs, recipe.pieces)


def _worth_keeping(used: dict[Pack, int], fresh_bytes: int) -> list[Pack]:
    """Choose the packs to refer to: few of them, and little in them that is not needed."""
    kept = sorted(used, key=lambda pack: used[pack], reverse=True)
    again = sum(used[pack] for pack in kept[MAX_EARLIER_PACKS:])
    kept = kept[:MAX_EARLIER_PACKS]
    while kept:
        needed = fresh_bytes + again + sum(used[pack] for pack in kept)
        taken = fresh_bytes + again + sum(pack.size_bytes for pack in kept)
        if needed >= MIN_USE * taken:
            break
        worst = max(kept, key=lambda pack: pack.size_bytes - used[pack])
        again += used[worst]
        kept.remove(worst)
    return kept


def _there(objects: ObjectStore, packs: Sequence[Pack]) -> list[Pack]:
    """Leave out packs that are gone or cut off."""
    sizes = at_once(lambda pack: objects.size(keys.blob_key(pack.digest)), packs)
    return [pack for pack, size in zip(packs, sizes, strict=True) if size == pack.size_bytes]


def _content(header: bytes, pieces: Iterable[tuple[bytes, int]]) -> str:
    listed = b"".join(digest + length.to_bytes(8, "little") for digest, length in pieces)
    return digest_of(map(memoryview, (_MAGIC, len(header).to_bytes(8, "little"), header, listed)))


def _length(parts: list[memoryview]) -> int:
    return sum(part.nbytes for part in parts)


def _hash_of(parts: Sequence[memoryview]) -> bytes:
    from blake3 import blake3

    hasher = blake3()
    for part in parts:
        hasher.update(as_bytes(part))
    digest: bytes = hasher.digest()
    return digest
