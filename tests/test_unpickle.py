"""Files of torch.save are read as torch reads them, and hostile or damaged ones end in one error, nothing executed."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch

from recon_toolkit import CheckpointError
from recon_toolkit.io.torch_files import OpaqueObject, read_torch_file

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def saved(content, *, zipped):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def contents():
    """Something of everything that checkpoints hold."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(6, 5, generator=generator)
    layer = torch.nn.Linear(3, 2)
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    return {
        "state": layer.state_dict(),  # an OrderedDict with an attribute
        "parameter": layer.weight,
        "transposed": base.t(),
        "part": base[2:4, 1:],
        "repeated": base[:1].expand(4, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "types": {str(dtype): (base * 3).to(dtype) for dtype in types},
        "plain": [1, -5, 2**40, 2**70, 0.5, None, True, "wörd", (1, (2, "x")), {"a": {1: 2}}, b"bytes"],
        "size": base.shape,
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
    }


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(found, expected.detach())
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return isinstance(found, OpaqueObject) if isinstance(expected, bytes) and found != expected else found == expected


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_it_reads_what_torch_reads(tmp_path, zipped):
    path = tmp_path / "file.pth"
    path.write_bytes(saved(contents(), zipped=zipped))
    expected = torch.load(path, weights_only=False)
    found = read_torch_file(path)
    assert list(found) == list(expected)
    for name in expected:
        assert same(found[name], expected[name]), name


def test_tensors_that_share_memory_still_do(tmp_path):
    base = torch.arange(6.0)
    torch.save({"all": base, "half": base[3:]}, tmp_path / "file.pth")
    found = read_torch_file(tmp_path / "file.pth")
    found["all"][3] = 7
    assert found["half"][0] == 7


# -- hostile files -----------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Builds:
    """Pickles as an object that is given a state, which for some classes runs code."""

    def __init__(self, function, arguments, state):
        self.call = function, arguments, state

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Objects that make the file ``marker`` when Python's unpickler loads them."""
    touch = f"open({str(marker)!r}, 'w').close()"
    yield Calls(os.system, f"touch '{marker}'")
    yield Calls(exec, touch)
    yield Calls(eval, touch)
    yield [{"deep": (Calls(exec, touch),)}]
    yield Calls(getattr, Calls(__import__, "os"), "system")
    yield Calls(OrderedDict, [("a", Calls(exec, touch))])
    yield Calls(torch.Size, [Calls(exec, touch)])
    yield Builds(exec, (touch,), {"__class__": Calls(eval, touch)})
    yield Builds(OrderedDict, (), (None, {"_metadata": Calls(exec, touch)}))
    yield Calls(map, exec, [touch])
    yield Calls(torch.load, str(marker))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_is_executed(tmp_path, zipped, protocol):
    marker = tmp_path / "executed"
    for number, attack in enumerate(attacks(marker)):
        path = tmp_path / f"{number}.pth"
        with path.open("wb") as file:
            torch.save(
                {"netD": {"w": torch.zeros(2)}, "attack": attack, "after": 1},
                file,
                pickle_protocol=protocol,
                _use_new_zipfile_serialization=zipped,
            )
        try:
            found = read_torch_file(path)
            assert found["after"] == 1 and torch.equal(found["netD"]["w"], torch.zeros(2))
        except CheckpointError as error:
            assert str(path) in str(error)
        assert not marker.exists(), number


def test_the_attacks_are_attacks(tmp_path):
    """Python's own unpickler does execute the first of them, so the marker is worth looking for."""
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(next(iter(attacks(marker)))))
    assert marker.exists()


def archive(pickled, records=(), **more):
    """A zip file as torch.save writes it, around a pickle of one's own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", more.get("compression", zipfile.ZIP_STORED)) as file:
        file.writestr("archive/data.pkl", pickled)
        for name, data in dict(records).items():
            file.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def word(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def dictionary(value):
    """A pickle of {"a": value}."""
    return b"\x80\x02}" + word("a") + value + b"s."


def storage(count=b"K\x04", key="0", kind=b"ctorch\nFloatStorage\n"):
    return b"(" + word("storage") + kind + word(key) + word("cpu") + count + b"tQ"


def tensor(offset=b"K\x00", shape=b"K\x04\x85", strides=b"K\x01\x85", flat=None):
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    flat = storage() if flat is None else flat
    return dictionary(rebuild + b"(" + flat + offset + shape + strides + b"\x89}tR")


DATA = {"data/0": struct.pack("<4f", 1, 2, 3, 4), "version": b"3\n"}
HUGE = b"\x8a\x06" + b"\xff" * 5 + b"\x7f"
MINUS = b"J" + struct.pack("<i", -1)


def test_the_archive_written_by_hand_is_read(tmp_path):
    (tmp_path / "file.pth").write_bytes(archive(tensor(), DATA))
    assert read_torch_file(tmp_path / "file.pth")["a"].tolist() == [1, 2, 3, 4]


def opcodes(marker):
    """Pickles that no pickler writes."""
    system = b"cos\nsystem\n"
    command = word(f"touch '{marker}'")
    return {
        "inst": b"\x80\x02}" + word("a") + b"(" + command + b"ios\nsystem\ns.",
        "obj": dictionary(b"(" + system + command + b"o"),
        "newobj": dictionary(system + command + b"\x85\x81"),
        "newobj with keywords": b"\x80\x04}" + word("a") + system + command + b"\x85}\x92s.",
        "stack global": b"\x80\x04}" + word("a") + word("os") + word("system") + b"\x93" + command + b"\x85Rs.",
        "extension": b"\x80\x02}" + word("a") + b"\x82\x01s.",
        "build of a known function": dictionary(system + command + b"\x85b"),
        "build of a tensor": dictionary(tensor()[5 + len(word("a")) - 2 : -2] + b"}" + word("data") + b"K\x01sb"),
        "text reference": b"\x80\x02}" + word("a") + b"Pos.system\ns.",
        "out of band": b"\x80\x05}" + word("a") + b"\x97s.",
        "a call of a word": dictionary(word("os.system") + command + b"\x85R"),
        "no arguments": dictionary(system + command + b"R"),
        "a name that is no word": b"\x80\x04}" + word("a") + b"]]\x93s.",
    }


@pytest.mark.parametrize("name", opcodes("x"))
def test_no_step_of_a_pickle_executes_anything(tmp_path, name):
    marker, path = tmp_path / "executed", tmp_path / "file.pth"
    path.write_bytes(archive(opcodes(marker)[name], DATA))
    try:
        assert set(read_torch_file(path)) == {"a"}
    except CheckpointError as error:
        assert str(path) in str(error) and error.remedy
    assert not marker.exists()


REFUSED = {
    "an offset beyond the storage": (tensor(offset=b"K\x01"), "beyond its storage"),
    "a shape beyond the storage": (tensor(shape=b"K\x05\x85"), "beyond its storage"),
    "strides beyond the storage": (tensor(strides=b"K\x02\x85"), "beyond its storage"),
    "a negative stride": (tensor(strides=MINUS + b"\x85"), "impossible shape"),
    "a negative offset": (tensor(offset=MINUS), "impossible shape"),
    "a shape of huge numbers": (tensor(shape=HUGE + b"\x85"), "beyond its storage"),
    "a product of huge numbers": (
        tensor(shape=(b"J\xff\xff\xff\x0f" * 3) + b"\x87", strides=b"K\x00K\x00K\x00\x87"),
        "(268435455, 268435455, 268435455) made of 4 stored numbers",
    ),
    "one number more than are stored": (
        tensor(shape=b"K\x05\x85", strides=b"K\x00\x85"),
        "shape (5,) made of 4 stored numbers, as Tensor.expand makes them",
    ),
    "a shape that is a word": (tensor(shape=word("xy")), "more or other than a few numbers"),
    "a shape that is bytes": (tensor(shape=b"C\x01\x04", strides=b"C\x01\x01"), "more or other than a few numbers"),
    "a shape of many numbers": (
        tensor(shape=b"(" + b"K\x01" * 17 + b"t", strides=b"(" + b"K\x01" * 17 + b"t"),
        "more or other than a few numbers",
    ),
    "a size that is a word": (dictionary(b"ctorch\nSize\n" + word("xy") + b"\x85R"), "more or other than a few"),
    "a size that is bytes": (dictionary(b"ctorch\nSize\nC\x02xy\x85R"), "more or other than a few"),
    "a size of many numbers": (dictionary(b"ctorch\nSize\n(" + b"K\x01" * 17 + b"t\x85R"), "more or other than a few"),
    "a size of fractions": (dictionary(b"ctorch\nSize\nG" + bytes(8) + b"\x85\x85R"), "not of whole numbers"),
    "a dictionary of a tensor's rows": (
        dictionary(b"ccollections\nOrderedDict\n" + tensor()[len(dictionary(b"")) - 2 : -2] + b"\x85R"),
        "a dictionary that is not of pairs",
    ),
    "a dictionary of words": (
        dictionary(b"ccollections\nOrderedDict\n](" + word("xy") + b"e\x85R"),
        "a dictionary that is not of pairs",
    ),
    "more strides than sizes": (tensor(strides=b"K\x01K\x01\x86"), "impossible shape"),
    "a shape of words": (tensor(shape=word("x") + b"\x85"), "not of whole numbers"),
    "a storage larger than its record": (tensor(flat=storage(b"K\x05")), "has 16 bytes, but 20 are asked for"),
    "a storage smaller than its record": (tensor(flat=storage(b"K\x03")), "has 16 bytes, but 12 are asked for"),
    "a storage larger than the file": (tensor(flat=storage(HUGE)), "larger than the file"),
    "a storage of negative size": (tensor(flat=storage(MINUS)), "kind that is not known"),
    "a storage of no type": (tensor(flat=storage(kind=b"cos\nsystem\n")), "kind that is not known"),
    "a storage without record": (tensor(flat=storage(key="../../etc/passwd")), "the archive lacks data/../../etc"),
    "no storage": (tensor(flat=b"N"), "a tensor without storage"),
    "a reference to nothing": (dictionary(b"NQ"), "no tensor's storage"),
    "a memo that is not there": (dictionary(b"h\x07"), "damaged"),
    "an empty stack": (b"\x80\x02.", "takes what is not there"),
    "no mark": (b"\x80\x02t.", "lacks a mark"),
    "no end": (b"\x80\x02}", "damaged"),
    "no dictionary": (b"\x80\x02]K\x01K\x02s.", "no dictionary"),
    "numbers as keys": (b"\x80\x02}K\x01K\x02s.", "not a dictionary by names"),
    "a word that is longer than the file": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.", "damaged"),
    "bytes that are longer than the file": (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.", "damaged"),
    "a module": (b"\x80\x02cos\nsystem\n.", "holds a os.system, not a dictionary"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(tmp_path, name):
    pickled, message = REFUSED[name]
    (tmp_path / "file.pth").write_bytes(archive(pickled, DATA))
    with pytest.raises(CheckpointError, match="nothing in it was executed") as caught:
        read_torch_file(tmp_path / "file.pth")
    assert message in str(caught.value) and "file.pth" in str(caught.value)


A = b"\x80\x04}" + word("a")  # {"a": ..., to be ended by SETITEM and STOP
DEEP = b"K\x01" + b"\x85" * 200_000  # ((((...1...))))
DOUBLING = b"]" + b"2\x86" * 200  # a pair of the one before, 2^200 lists when written out
COLLIDING = (b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, 50_000))
EXHAUSTING = {
    "lists in lists": A + b"]" * 200_000 + b"a" * 199_999 + b"s.",
    "tuples in tuples": A + DEEP + b"s.",
    "tuples in tuples as a key": A + b"}" + DEEP + b"K\x01ss.",
    "tuples in tuples in a set": A + b"\x8f(" + DEEP + b"\x90s.",
    "a list of itself": A + b"]q\x00h\x00as.",
    "a list that doubles": A + DOUBLING + b"s.",
    "a list that doubles as a storage's type": tensor(flat=storage(kind=DOUBLING)),
    "a list that doubles as a storage's key": A
    + b"("
    + word("storage")
    + b"ctorch\nFloatStorage\n"
    + DOUBLING
    + b"NK\x00tQs.",
    "a list that doubles as a name": A + DOUBLING + DOUBLING + b"\x93s.",
    "a far memo": A + b"]r\xff\xff\xff\xffs.",
    "numbers that collide as keys": A + b"}(" + b"".join(COLLIDING) + b"us.",
    "more steps than anybody needs": b"\x80\x02" + b"N0" * 1_100_000 + b".",
    "copies of a long list": A
    + b"]("
    + b"N" * 100_000
    + b"eq\x00ctorch\nSize\nq\x01"
    + b"h\x01h\x00\x85R" * 5_000
    + b".",
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_nothing_exhausts_the_machine(tmp_path, name):
    """In a moment and without the memory that the file pretends to need; a recursion would end the process."""
    (tmp_path / "file.pth").write_bytes(archive(EXHAUSTING[name], DATA))
    try:
        read_torch_file(tmp_path / "file.pth")
    except CheckpointError as error:
        assert len(str(error)) < 1000


# Files of at most 3 MB that would take hundreds, or get others to, where sizes are not checked first.
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ONE = b"(" + storage() + b"K\x00K\x01\x85K\x01\x85\x89}t"  # the arguments for a tensor of one number
WORD, BYTES = word("x" * 2_000_000), b"B" + struct.pack("<I", 2_000_000) + bytes(2_000_000)
SHARED = b"q\x01ctorch\nSize\nq\x02"  # memo 1: the value before, memo 2: torch.Size
SIZES = b"h\x02h\x01\x85R" * 41  # of 2 million pointers each, if they were made
GROWING = {
    "sizes that are a long word": A + b"(" + WORD + SHARED + SIZES + b"ls.",
    "sizes that are long bytes": A + b"(" + BYTES + SHARED + SIZES + b"ls.",
    "an expanded tensor": tensor(shape=b"J\x00\x00\x00\x10\x85", strides=b"K\x00\x85"),
    "a very much expanded tensor": tensor(shape=b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85", strides=b"K\x00\x85"),
    "dictionaries of a long tuple": A
    + b"(("
    + b"]" * 500_000
    + b"tq\x01ccollections\nOrderedDict\nq\x02"
    + b"h\x02h\x01R0" * 300_000
    + b"ls.",
    "names of long words": b"\x80\x04}" + WORD + b"q\x01(" + b"h\x01h\x01\x93" * 100_000 + b"ls.",
    "a tensor many times": A + b"(" + REBUILD + b"q\x05" + ONE + b"q\x06" + b"h\x05h\x06R" * 600_000 + b"ls.",
    "sets": A + b"(" + b"\x8f" * 1_990_000 + b"ls.",
}
#: What a reader may take besides: the largest file takes 2 million steps, of each of which 100 bytes can be kept.
SPARE = 300 << 20
READER = f"""
import resource, sys
from recon_toolkit import CheckpointError
from recon_toolkit.io.torch_files import read_torch_file

read_torch_file(sys.argv[1])  # what is loaded at the first use does not count
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + {SPARE}, held + {SPARE}))
for path in sys.argv[2:]:
    try:
        read_torch_file(path)
        print("read")
    except CheckpointError as error:
        print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of a process's memory is Linux's")
def test_torch_has_no_limit_where_ours_has(tmp_path):
    """Why there is an unpickler of our own: a file of 150 kB makes torch's, which runs nothing either, take hundreds of
    megabytes, and would gigabytes were the dictionary called for more often."""
    pairs = b"".join(b"J" + struct.pack("<i", number) + b"N\x86" for number in range(20_000))
    calls = b"h\x02h\x01R" * 300
    pickle = b"\x80\x02](](" + pairs + b"e\x85q\x01ccollections\nOrderedDict\nq\x02" + calls + b"e."
    path = tmp_path / "file.pth"
    path.write_bytes(archive(pickle, DATA))
    assert path.stat().st_size < 160_000
    made = torch.load(path, weights_only=True)
    assert sum(map(sys.getsizeof, made)) > 300e6
    del made
    with pytest.raises(CheckpointError, match="longer than that of any checkpoint"):
        read_torch_file(path)


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    """In a process that can take 300 MB and no more: one that tries to is told by the reader's own error."""
    paths = [tmp_path / f"{number}.pth" for number in range(len(GROWING))]
    for path, pickled in zip(paths, GROWING.values(), strict=True):
        path.write_bytes(archive(pickled, DATA))
        assert path.stat().st_size < 3_100_000
    (tmp_path / "good.pth").write_bytes(saved(contents(), zipped=True))
    command = [sys.executable, "-c", READER, str(tmp_path / "good.pth"), *map(str, paths)]
    # One thread: the stacks of others would count, whenever they start.
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stderr
    said = dict(zip(GROWING, ended.stdout.splitlines(), strict=True))
    assert all("nothing in it was executed" in line and "Error" not in line for line in said.values()), said
    for name in ("an expanded tensor", "a very much expanded tensor"):
        assert "as Tensor.expand makes them" in said[name] and ".clone()" in said[name]


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    path.write_bytes(archive(b"\x80\x02" + b"N0" * 10_000_000 + b".", DATA, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="the archive is compressed"):
        read_torch_file(path)


def test_records_that_overlap_do_not_multiply(tmp_path):
    """A hundred storages of one record's bytes: together larger than the file."""
    buffer = io.BytesIO()
    flats = b"".join(storage(b"M\xe8\x03", key=str(n)) + b"0" for n in range(100))
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + flats + b"}.")
        file.writestr("archive/data/0", bytes(4000))
        (first,) = (info for info in file.filelist if info.filename.endswith("data/0"))
        for n in range(1, 100):
            copy = zipfile.ZipInfo(f"archive/data/{n}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(copy, name, getattr(first, name))
            file.filelist.append(copy)
            file.NameToInfo[copy.filename] = copy
    (tmp_path / "file.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError):
        read_torch_file(tmp_path / "file.pth")


# -- damaged files, and files of other kinds ---------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_cut_file_is_an_error_wherever_it_is_cut(tmp_path, zipped):
    whole = saved({"a": torch.arange(40.0), "b": {"c": torch.zeros(3, 3)}}, zipped=zipped)
    path = tmp_path / "cut.pth"
    for length in range(0, len(whole), max(len(whole) // 60, 1)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth"):
            read_torch_file(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_flipped_bytes_end_in_a_result_or_one_error(tmp_path, zipped):
    whole = bytearray(saved({"a": torch.arange(40.0), "b": OrderedDict(c=torch.zeros(3, 3), d=[1])}, zipped=zipped))
    generator, path = random.Random(7), tmp_path / "flipped.pth"
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            read_torch_file(path)
        except CheckpointError as error:
            assert "flipped.pth" in str(error)


def torchscript(path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(path))


def safetensors(path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, str(path))


OTHERS = {
    "empty": (b"", "it is empty"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG image"),
    "page": (b"<!DOCTYPE html><html>", "a web page"),
    "noise": (bytes(range(1, 200)), "of another kind"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle, but not of torch.save"),
    "hostile pickle": (pickle.dumps(Calls(os.system, "true")), "a pickle, but not of torch.save"),
    "hostile text pickle": (b"cos\nsystem\n(S'true'\ntR.", "of another kind"),
    "another protocol": (pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(7, 2), "a protocol that is not known"),
    "another byte order": (
        pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": False}, 2),
        "of another byte order",
    ),
    "another archive": (archive(b"x")[:30] + bytes(60), "damaged or cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_kinds_are_named(tmp_path, name):
    content, message = OTHERS[name]
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(tmp_path / "other.pth")
    assert message in str(caught.value) and caught.value.where == str(tmp_path / "other.pth") and caught.value.remedy


@pytest.mark.parametrize(
    ("write", "message"),
    [(torchscript, "TorchScript"), (safetensors, "a safetensors file"), (os.mkdir, "cannot be read")],
)
def test_other_programs_files_are_named(tmp_path, write, message):
    write(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(tmp_path / "other.pth")


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read_torch_file(tmp_path / "none.pth")


def test_legacy_storages_must_be_those_of_the_tensors(tmp_path):
    whole = saved({"a": torch.arange(40.0)}, zipped=False)
    end = len(whole) - 40 * 4 - 8  # a storage is its number of elements and these
    for count in (39, 41, 2**62):
        (tmp_path / "file.pth").write_bytes(whole[:end] + struct.pack("<q", count) + whole[end + 8 :])
        with pytest.raises(CheckpointError, match="of another size"):
            read_torch_file(tmp_path / "file.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_torch_saves_of_an_expanded_tensor_is_refused(tmp_path, zipped):
    (tmp_path / "file.pth").write_bytes(saved({"a": torch.zeros(1).expand(2**28)}, zipped=zipped))
    with pytest.raises(CheckpointError, match=r"\(268435456,\) made of 1 stored numbers") as caught:
        read_torch_file(tmp_path / "file.pth")
    assert "save such tensors with .clone()" in str(caught.value)


def test_a_view_of_a_legacy_storage_starts_where_the_view_does(tmp_path):
    """Old writers gave a storage that was part of another one as (key, offset, elements) of that one."""
    view = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu") + b"K\x04"
    flat = view + b"(" + word("part") + b"K\x01K\x03ttQ"
    heads = (LEGACY_MAGIC, 1001, {"little_endian": True})
    (tmp_path / "file.pth").write_bytes(
        b"".join(pickle.dumps(head, 2) for head in heads)
        + tensor(offset=b"K\x01", shape=b"K\x02\x85", flat=flat)
        + pickle.dumps(["0"], 2)
        + struct.pack("<q4f", 4, 1, 2, 3, 4)
    )
    assert torch.load(tmp_path / "file.pth")["a"].tolist() == [3, 4]
    assert read_torch_file(tmp_path / "file.pth")["a"].tolist() == [3, 4]
