# SPDX-License-Identifier: Apache-2.0
"""
Values in pieces, so that versions of one name share what did not change.

A codec cuts a value where its content says so. A version stores those pieces that the version saved last
under its name does not have, in one object, a pack. The pack ends with the recipe: where each piece lies, in
this pack or in an earlier one. The version's digest is a hash over the hashes of the pieces, so that it names
the content however it is packed.

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
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
)

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore, Source
    from airflow_ml_provider.artifacts.signing import Signer

# Beside its own pack, a version is read from so many at most.
MAX_EARLIER_PACKS = 5
# Of the bytes that are read for a version so many are needed, at least.
MIN_USE = 2 / 3

_HEAD_KIND = "ml-head/v1"
_MAGIC = b"AMLPACK1"
_TOP = struct.Struct("<8sQII")  # magic, length of the header, packs, pieces
_PACK = struct.Struct("<32sQ")  # hash, length
_PIECE = struct.Struct("<32sQIQQ")  # hash, length, pack, offset and length there
_FOOT = struct.Struct("<Q8s")  # length of the recipe, magic
_OWN = bytes(32)
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
    :param piece: Returns the bytes of one, as parts to join; the same bytes on each call, from any thread.
        Parts are not copied, and must not change before the value is stored. A part that is numbers has
        their format (:class:`memoryview`), so that it can be stored as smaller ones.
    :param is_long: Whether a piece takes a compressor more time than it takes the interpreter.
    :param schema: What the value looks like, as small JSON.
    :param preview: Its beginning, as small JSON.
    :param type: Name of the value's type.
    """

    header: bytes
    count: int
    size_bytes: int
    piece: Callable[[int], list[memoryview]]
    is_long: Callable[[int], bool] = lambda _: True
    schema: dict[str, Any] | None = None
    preview: Any = None
    type: str = ""


class Pack(NamedTuple):
    """An object that holds pieces; the digest is empty for the one that holds the recipe."""

    digest: str
    size_bytes: int


class Piece(NamedTuple):
    """
    Where a piece lies.

    :param digest: Hash of its bytes.
    :param length: Of its bytes.
    :param pack: Number of the pack; 0 is the one that holds the recipe.
    :param start: Offset in the pack.
    :param stored: Length there: encoded, or as it is if the two lengths are equal.
    """

    digest: bytes
    length: int
    pack: int
    start: int
    stored: int


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
        return b"".join(
            [
                _TOP.pack(_MAGIC, len(header), len(self.packs), len(self.pieces)),
                header,
                *packs,
                *(_PIECE.pack(*piece) for piece in self.pieces),
            ]
        )

    @classmethod
    def from_bytes(cls, data: memoryview) -> Recipe:
        """
        Read a recipe.

        :raises ValueError: if it is none, or names a place outside of its packs.
        """
        try:
            magic, header_length, pack_count, piece_count = _TOP.unpack_from(data)
            if magic != _MAGIC:
                raise ValueError("it does not begin as a recipe does")
            at = _TOP.size + header_length
            after_packs = at + pack_count * _PACK.size
            if len(data) != after_packs + piece_count * _PIECE.size or pack_count < 1:
                raise ValueError("its length is not what it says")
            header = bytes(encodings.expand(data[_TOP.size : at], None))
            packs = tuple(
                Pack("" if digest == _OWN else f"blake3:{digest.hex()}", size)
                for digest, size in _PACK.iter_unpack(data[at:after_packs])
            )
            pieces = tuple(map(Piece._make, _PIECE.iter_unpack(data[after_packs:])))
        except struct.error as exc:
            raise ValueError(str(exc)) from exc
        for piece in pieces:
            if piece.pack >= pack_count or piece.start + piece.stored > packs[piece.pack].size_bytes:
                raise ValueError("a piece lies outside of its pack")
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

    def length(self, first: int, count: int = 1) -> int:
        """Bytes of neighbouring pieces."""
        return sum(piece.length for piece in self._recipe.pieces[first : first + count])

    def read(self, number: int) -> memoryview:
        """
        Return the bytes of a piece; from any thread.

        :raises ArtifactCorruptError: if they are not those that were written.
        """
        made = memoryview(bytearray(self._recipe.pieces[number].length))
        self.read_into(number, [made])
        return made

    def read_into(self, number: int, targets: Sequence[memoryview]) -> None:
        """
        Write the bytes of a piece to where they belong; from any thread.

        :param targets: Of one byte an item: one for each part that the piece was made of.
        :raises ArtifactCorruptError: if they are not those that were written, or as many.
        """
        piece = self._recipe.pieces[number]
        pack = self._packs[piece.pack]
        try:
            if sum(target.nbytes for target in targets) != piece.length:
                raise ValueError(f"it has {piece.length} bytes, and its value needs others")
            is_whole = piece.stored == piece.length
            if is_whole:
                pack.read_into(piece.start, targets)
            else:
                encodings.decode(pack.read(piece.start, piece.stored), targets)
            # Of what was encoded not every damage shows as one.
            if (self._verify or not is_whole) and _hash_of(targets) != piece.digest:
                raise ValueError("its hash is another one")
        except ValueError as exc:
            raise ArtifactCorruptError(
                f"{self._whose} is damaged: {self._keys[piece.pack]}: piece {number}: {exc}; delete that "
                "object and re-run what wrote it"
            ) from exc


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
    fresh: dict[bytes, list[memoryview]] = {}
    # A disk takes more bytes in less time than they take to compress well; a network does not.
    compressor = encodings.LZ4 if objects.is_local else encodings.ZSTD
    is_long: Callable[[int], bool] = cut.is_long if objects.is_local else lambda _: True

    def look(number: int) -> tuple[bytes, int]:
        parts = cut.piece(number)
        digest = _hash_of(parts)
        if digest not in known and digest not in fresh:
            fresh[digest] = encodings.encode(parts, compressor)
        return digest, _length(parts)

    found = spread(look, range(cut.count), is_long)
    content = _content(cut.header, found)
    numbers: dict[bytes, int] = {}
    for number, (digest, _) in enumerate(found):
        numbers.setdefault(digest, number)
    kept: list[Pack] = []
    if head is not None:
        packs = head.packs
        if content == head.content() and _there(objects, packs) == list(packs):
            parts = tuple(pack.digest for pack in packs)
            return Written(content, head.size_bytes, parts, head.unpacked_bytes, None)
        used: dict[Pack, int] = {}
        for piece in (known[digest] for digest in numbers if digest in known):
            used[packs[piece.pack]] = used.get(packs[piece.pack], 0) + piece.stored
        kept = _there(objects, _worth_keeping(used, sum(map(_length, fresh.values()))))
        known = {digest: piece for digest, piece in known.items() if packs[piece.pack] in kept}
        again = [digest for digest in numbers if digest not in known and digest not in fresh]
        fresh.update(
            zip(
                again,
                spread(
                    lambda digest: encodings.encode(cut.piece(numbers[digest]), compressor),
                    again,
                    lambda digest: is_long(numbers[digest]),
                ),
                strict=True,
            )
        )
        known = {
            digest: piece._replace(pack=1 + kept.index(packs[piece.pack])) for digest, piece in known.items()
        }

    body, places = _laid_out(fresh, numbers)
    places |= {digest: (piece.pack, piece.start, piece.stored) for digest, piece in known.items()}
    recipe = Recipe(
        cut.header,
        (Pack("", _length(body)), *kept),
        tuple(Piece(digest, length, *places[digest]) for digest, length in found),
    )
    text = recipe.to_bytes()
    own = Pack(*put([*body, memoryview(text), memoryview(_FOOT.pack(len(text), _MAGIC))], not kept))
    parts = (own.digest, *(pack.digest for pack in kept))
    left = _to_head(signer, name, own, text)
    return Written(content, recipe.size_bytes, parts, recipe.unpacked_bytes, left)


def _laid_out(
    fresh: dict[bytes, list[memoryview]], order: Iterable[bytes]
) -> tuple[list[memoryview], dict[bytes, tuple[int, int, int]]]:
    """Put pieces into a pack one after the other; returns what it consists of, and where each piece lies."""
    places: dict[bytes, tuple[int, int, int]] = {}
    body: list[memoryview] = []
    end = 0
    for digest in order:
        if digest in fresh:
            if gap := -end % _ALIGNED:
                body.append(memoryview(bytes(gap)))
                end += gap
            places[digest] = (0, end, _length(fresh[digest]))
            body += fresh[digest]
            end += _length(fresh[digest])
    return body, places


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

    hasher = blake3(parts[0].cast("B")) if parts[0].nbytes else blake3()
    for part in parts[1:]:
        if part.nbytes:
            hasher.update(part.cast("B"))
    digest: bytes = hasher.digest()
    return digest
