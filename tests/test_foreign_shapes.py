"""Shapes as other programs write them."""

import json
import os
import struct
import time

import numpy as np
import pytest
import trimesh
from PIL import Image
from recon_object_views.meshes import read_mesh

from recon_toolkit.cli.app import execute
from recon_toolkit.errors import DataError
from recon_toolkit.io.materials import Nearby, texture_name
from recon_toolkit.io.shape_files import read_shape, write_shape
from recon_toolkit.shapes.forms import Cloud, Mesh
from recon_toolkit.shapes.printable import check_printable

BOX = trimesh.creation.box((1, 2, 3))
#: The box's quads, anticlockwise from outside, for files that have polygons.
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def run(*words, code=0):
    assert execute(["convert", *map(str, words)]) == code


class Gltf:
    """A GLB put together by hand, as trimesh writes none of what is looked at here."""

    def __init__(self):
        self.body = b""
        self.tree = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": []}

    def view(self, values, **more):
        data = np.ascontiguousarray(values).tobytes()
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.body), "byteLength": len(data), **more})
        self.body += data + b"\0" * (-len(data) % 4)
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, values, **more):
        kinds = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
        values = np.asarray(values)
        form = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        kind = kinds[values.dtype.str[1:]]
        entry = {"bufferView": self.view(values), "componentType": kind, "count": len(values), "type": form, **more}
        self.tree["accessors"].append(entry)
        return len(self.tree["accessors"]) - 1

    def write(self, path, primitives, nodes=({"mesh": 0},), roots=(0,), **more):
        self.tree |= {"meshes": [{"primitives": primitives}], "nodes": list(nodes), "scene": 0, **more}
        self.tree["scenes"] = [{"nodes": list(roots)}]
        self.tree["buffers"] = [{"byteLength": len(self.body)}, *self.tree.get("buffers", [])]
        text = json.dumps(self.tree).encode()
        text += b" " * (-len(text) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(self.body))
        parts = (struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(self.body), b"BIN\0"))
        path.write_bytes(b"".join((head, *parts, self.body)))
        return path


def box_in(gltf, vertices=None):
    """A primitive: the box."""
    return {
        "attributes": {"POSITION": gltf.accessor(BOX.vertices.astype("<f4") if vertices is None else vertices)},
        "indices": gltf.accessor(BOX.faces.reshape(-1).astype("<u2")),
    }


def upright(bounds):
    """A box of a file with y up as it is with z up."""
    turned = np.asarray(bounds)[:, (0, 2, 1)] * (1, -1, 1)
    return np.stack((turned.min(axis=0), turned.max(axis=0)))


# glTF


@pytest.mark.parametrize("kind", ["i1", "u1", "<i2", "<u2"])
def test_normalised_integers_are_parts_of_one(kind, tmp_path):
    gltf = Gltf()
    largest = np.iinfo(kind).max
    signed = np.dtype(kind).kind == "i"
    unit = BOX.vertices / np.abs(BOX.vertices).max(axis=0)  # ±1
    values = np.round((unit if signed else (unit + 1) / 2) * largest).astype(kind)
    values = np.pad(values, ((0, 0), (0, 1)))[:, :3].copy()
    node = {"mesh": 0, "scale": [1, 2, 3], "translation": [5, 0, 0]}
    gltf.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    position = gltf.accessor(values, normalized=True)
    primitive = {"attributes": {"POSITION": position}, "indices": gltf.accessor(BOX.faces.reshape(-1).astype("<u2"))}
    found = read_shape(gltf.write(tmp_path / "a.glb", [primitive], [node]))
    low, high = ((-1, -2, -3), (1, 2, 3)) if signed else ((0, 0, 0), (1, 2, 3))
    # The ends of the range are exact; the sum with 5 is rounded.
    np.testing.assert_allclose(found.bounds, upright((np.add(low, (5, 0, 0)), np.add(high, (5, 0, 0)))), atol=1e-12)
    assert check_printable(found).printable and found.volume == pytest.approx(48 if signed else 6)


def test_nodes_are_placed_as_trimesh_places_them(tmp_path):
    gltf = Gltf()
    turn = trimesh.transformations.rotation_matrix(0.7, (1, 2, 3))
    turn[:3, 3] = (3, 4, 5)
    x, y, z, w = 0.1, 0.2, 0.3, 0.9
    length = np.sqrt(x * x + y * y + z * z + w * w)
    nodes = [
        {"children": [1, 2], "translation": [1, 2, 3], "rotation": [v / length for v in (x, y, z, w)]},
        {"mesh": 0, "matrix": turn.T.reshape(-1).tolist(), "children": [3]},
        {"mesh": 0, "scale": [-1, 2, 0.5]},
        {"mesh": 0, "translation": [0, 7, 0], "scale": [2, 2, 2]},
    ]
    path = gltf.write(tmp_path / "a.glb", [box_in(gltf)], nodes)
    found, other = read_shape(path), trimesh.load(path, force="mesh")
    np.testing.assert_allclose(found.bounds, upright(other.bounds), atol=1e-6)  # 32-bit floats of a few units
    assert check_printable(found).pieces == 3
    assert found.volume == pytest.approx(6 * (1 + 1 + 8), rel=1e-6)  # the mirrored one faces outwards too


def test_a_mesh_without_thickness_is_never_watertight(tmp_path, capsys):
    flat = Mesh(BOX.vertices * (1, 1, 0), BOX.faces)
    found = check_printable(flat)
    assert not found.watertight and "no thickness" in " ".join(found.problems)
    nearly = BOX.vertices * (1, 1, 1e-9)  # 32-bit noise of a flat sheet
    assert not check_printable(Mesh(nearly, BOX.faces)).watertight
    assert check_printable(Mesh(BOX.vertices * (1, 1, 1e-4), BOX.faces)).printable  # paper is a solid
    inside_out = np.vstack((BOX.faces, BOX.faces[:, ::-1] + 8))  # volumes that cancel are no want of thickness
    both = check_printable(Mesh(np.vstack((BOX.vertices, BOX.vertices + 5)), inside_out))
    assert both.watertight and both.problems == ("It is inside out.",)
    write_shape(tmp_path / "flat.ply", flat)
    run(tmp_path / "flat.ply", tmp_path / "flat.glb")
    assert "watertight" not in capsys.readouterr().out


def test_strips_fans_and_sparse_arrays_are_read(tmp_path):
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0)], "<f4")
    for mode, order, area in ((5, (0, 1, 2, 3, 4), 1.5), (6, (0, 1, 3, 2), 1.0)):
        gltf = Gltf()
        primitive = {"attributes": {"POSITION": gltf.accessor(corners)}, "mode": mode}
        primitive["indices"] = gltf.accessor(np.array(order, "u1"))
        found = read_shape(gltf.write(tmp_path / f"{mode}.glb", [primitive]))
        areas = np.cross(*(found.vertices[found.faces[:, k]] - found.vertices[found.faces[:, 0]] for k in (1, 2))) / 2
        assert np.linalg.norm(areas.sum(axis=0)) == pytest.approx(area)  # so that all face the same way
    gltf = Gltf()
    primitive = box_in(gltf)
    moved = BOX.vertices[7] + (1, 1, 1)
    sparse = {
        "count": 1,
        "indices": {"bufferView": gltf.view(np.array([7], "<u2")), "componentType": 5123},
        "values": {"bufferView": gltf.view(moved.astype("<f4"))},
    }
    gltf.tree["accessors"][primitive["attributes"]["POSITION"]]["sparse"] = sparse
    found = read_shape(gltf.write(tmp_path / "sparse.glb", [primitive]))
    vertices = BOX.vertices.copy()
    vertices[7] = moved
    assert found.volume == pytest.approx(trimesh.Trimesh(vertices, BOX.faces).volume, rel=1e-6)


def test_points_of_a_glb_are_a_cloud_and_lines_are_named(tmp_path):
    trimesh.PointCloud(np.eye(3), colors=[(255, 0, 0, 255)] * 3).export(tmp_path / "points.glb")
    found = read_shape(tmp_path / "points.glb")
    assert isinstance(found, Cloud) and np.array_equal(found.colours, [(255, 0, 0)] * 3)
    gltf = Gltf()
    lines = {"attributes": {"POSITION": gltf.accessor(np.eye(3, dtype="<f4"))}, "mode": 3}
    with pytest.raises(DataError, match="holds lines and no surface"):
        read_shape(gltf.write(tmp_path / "lines.glb", [lines]))


def compressed(kind, path):
    gltf = Gltf()
    primitive = box_in(gltf)
    if kind == "Draco":
        for accessor in gltf.tree["accessors"]:
            del accessor["bufferView"]
        draco = {"bufferView": 0, "attributes": {"POSITION": 0}}
        primitive["extensions"] = {"KHR_draco_mesh_compression": draco}
        return gltf.write(path, [primitive], extensionsRequired=["KHR_draco_mesh_compression"])
    for view in gltf.tree["bufferViews"]:
        view["extensions"] = {"EXT_meshopt_compression": {"buffer": 0, "byteLength": view["byteLength"]}}
        view["buffer"] = 1
    gltf.tree["buffers"] = [{"byteLength": 1000, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}]
    return gltf.write(path, [primitive], extensionsRequired=["EXT_meshopt_compression"])


@pytest.mark.parametrize("kind", ["Draco", "meshopt"])
@pytest.mark.parametrize("read", [read_shape, read_mesh])
def test_compression_is_named_with_the_remedy(kind, read, tmp_path):
    path = compressed(kind, tmp_path / "a.glb")
    with pytest.raises(DataError, match=f"compressed with {kind}, which is not read") as caught:
        read(path)
    assert caught.value.remedy == "save it without compression"


def spoilt(kind, gltf):
    """Arguments of a file with one thing wrong, and what is said of it."""
    primitive = box_in(gltf)
    accessor, view = gltf.tree["accessors"][0], gltf.tree["bufferViews"][0]
    nodes = [{"mesh": 0}]
    if kind == "node in itself":
        nodes = [{"mesh": 0, "children": [0]}]
    elif kind == "node twice":
        nodes = [{"children": [1, 1]}, {"mesh": 0}]
    elif kind == "endless count":
        accessor["count"] = 10**12
    elif kind == "empty endless count":
        del accessor["bufferView"]
        accessor["count"] = 10**12
    elif kind == "count":
        accessor["count"] = 1000
    elif kind == "view":
        view["byteLength"] = 10**9
    elif kind == "negative":
        view["byteOffset"] = -4
    elif kind == "accessor":
        primitive["indices"] = 99
    elif kind == "corner":
        primitive["indices"] = gltf.accessor(np.array((0, 1, 99), "<u2"))
    elif kind == "mode":
        primitive["mode"] = 9
    else:
        gltf.tree["extensionsRequired"] = ["EXT_never_heard_of"]
    return [primitive], nodes


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("node in itself", "holds itself"),
        ("node twice", "several parents"),
        ("endless count", "1,000,000,000,000 values of one array, more than"),
        ("empty endless count", "1,000,000,000,000 values of one array, more than"),
        ("count", "1,000 elements does not fit into buffer view 0, which has 96 bytes"),
        ("view", "needs 1,000,000,000 bytes"),
        ("negative", "says -4 where a number of bytes belongs"),
        ("accessor", "names accessors 99, and there are 2"),
        ("corner", "a face names vertex 99, and there are 8"),
        ("mode", "mode 9, which does not exist"),
        ("extension", "needs the extension EXT_never_heard_of"),
    ],
)
def test_a_glb_that_contradicts_itself_says_where(kind, message, tmp_path):
    gltf = Gltf()
    with pytest.raises(DataError, match=message) as caught:
        read_shape(gltf.write(tmp_path / "a.glb", *spoilt(kind, gltf)))
    assert caught.value.where == str(tmp_path / "a.glb") and caught.value.remedy


def test_fifty_thousand_nodes_take_seconds(tmp_path):
    gltf = Gltf()
    nodes = [{"mesh": 0, "translation": [2 * (k % 300), 4 * (k // 300), 0]} for k in range(50_000)]
    path = gltf.write(tmp_path / "a.glb", [box_in(gltf)], nodes, range(50_000))
    start = time.monotonic()
    assert len(read_shape(path).faces) == 600_000
    # 4 s on one slow core; with time by the square of the nodes it was many minutes.
    assert time.monotonic() - start < 60


def test_any_glb_that_is_written_is_matt(tmp_path):
    for colours in (None, np.full((8, 3), 9, np.uint8)):
        data = write_shape(tmp_path / "a.glb", Mesh(BOX.vertices, BOX.faces, colours)).read_bytes()
        tree = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
        (primitive,) = tree["meshes"][0]["primitives"]
        assert tree["materials"][primitive["material"]]["pbrMetallicRoughness"]["metallicFactor"] == 0


# PLY, OBJ, STL


def mixed_ply(form, count="uchar", index="int", name="vertex_indices"):
    """The box of two triangles and five quads, a colour at each face and a list of another kind behind it."""
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    kinds = {"uchar": "u1", "int": "i4", "uint": "u4", "ushort": "u2", "short": "i2"}
    polygons = [QUADS[0][:3], (QUADS[0][0], *QUADS[0][2:]), *QUADS[1:]]
    head = (
        f"ply\nformat {form} 1.0\ncomment by hand\nelement vertex 8\nproperty double x\nproperty double y\n"
        f"property double z\nelement face {len(polygons)}\nproperty list {count} {index} {name}\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    body = b"" if order else (head + "\n".join(" ".join(map(str, row)) for row in BOX.vertices) + "\n").encode()
    if not order:
        rows = [" ".join(map(str, (len(p), *p, 10 * k, 20, 30))) for k, p in enumerate(polygons)]
        return body + "\n".join(rows).encode() + b"\n"
    body = BOX.vertices.astype(order + "f8").tobytes()
    for k, polygon in enumerate(polygons):
        body += np.array([len(polygon)], order + kinds[count]).tobytes()
        body += np.array(polygon, order + kinds[index]).tobytes() + bytes((10 * k, 20, 30))
    return head.encode() + body


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    ("count", "index"), [("uchar", "int"), ("int", "uint"), ("ushort", "short"), ("uchar", "uchar")]
)
def test_triangles_and_quads_in_one_ply(form, count, index, tmp_path):
    name = "vertex_index" if count == "int" else "vertex_indices"
    (tmp_path / "a.ply").write_bytes(mixed_ply(form, count, index, name))
    found = read_shape(tmp_path / "a.ply")
    assert len(found.faces) == 12 and check_printable(found).printable and found.volume == pytest.approx(6)
    coloured = read_mesh(tmp_path / "a.ply", up="z")
    expected = np.repeat([0, 10, 20, 30, 40, 50, 60], [1, 1, 2, 2, 2, 2, 2])
    np.testing.assert_allclose(coloured.colours[:, 0] * 255, expected, atol=1e-9)


def test_a_ply_that_claims_more_than_it_has_is_refused(tmp_path):
    whole = mixed_ply("binary_little_endian")
    for number, data in enumerate((whole[:-9], whole[:-60], mixed_ply("ascii")[:-12])):
        (tmp_path / f"{number}.ply").write_bytes(data)
        with pytest.raises(DataError, match="claims 7 of 'face' and holds fewer"):
            read_shape(tmp_path / f"{number}.ply")
    for form in ("ascii", "binary_big_endian"):
        (tmp_path / "rows.ply").write_bytes(mixed_ply(form).replace(b"vertex 8", b"vertex 1000000000000"))
        with pytest.raises(DataError, match="1,000,000,000,000 of 'vertex', more than"):
            read_shape(tmp_path / "rows.ply")


@pytest.mark.parametrize("largest", [1, 255])
def test_colours_at_an_objs_vertices_are_kept(largest, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 3)).astype(np.uint8)
    lines = [
        f"v {x} {y} {z} {r} {g} {b}" for (x, y, z), (r, g, b) in zip(BOX.vertices, colours / 255 * largest, strict=True)
    ]
    lines += ["f " + " ".join(str(corner + 1) for corner in quad) for quad in QUADS]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    for suffix in (".glb", ".ply", ".obj"):
        run(tmp_path / "a.obj", tmp_path / f"b{suffix}", "--as", "mesh")
        (other,) = trimesh.load_scene(tmp_path / f"b{suffix}", process=False).geometry.values()
        # trimesh keeps the colours of a surface that has a material as well, as here GLB, apart.
        painted = other.visual.vertex_attributes["color"] if suffix == ".glb" else other.visual.vertex_colors
        vertices = other.vertices if suffix != ".ply" else other.vertices[:, (0, 2, 1)] * (1, 1, -1)  # z up
        nearest = np.linalg.norm(vertices[:, None] - BOX.vertices, axis=2).argmin(axis=1)
        assert sorted(nearest) == list(range(8))
        assert np.array_equal(painted[:, :3], colours[nearest])
        assert np.array_equal(
            np.unique(read_shape(tmp_path / f"b{suffix}").colours, axis=0), np.unique(colours, axis=0)
        )


def test_parts_of_unlike_colours_still_are_one_solid(tmp_path, capsys):
    soup = Mesh(BOX.vertices[BOX.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3))
    painted = Mesh(soup.vertices, soup.faces, np.arange(108, dtype=np.uint8).reshape(-1, 3))
    write_shape(tmp_path / "a.glb", painted)
    run(tmp_path / "a.glb", tmp_path / "b.glb", tmp_path / "b.3mf")
    assert capsys.readouterr().out.count("watertight") == 2
    assert len(read_shape(tmp_path / "b.glb").colours) == 36
    assert len(read_shape(tmp_path / "b.3mf").vertices) == 8


def stl(count, extra=b""):
    rows = np.zeros(12, np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")]))
    rows["c"] = BOX.triangles
    return b"solid by a scanner".ljust(80) + struct.pack("<I", count) + rows.tobytes() + extra


@pytest.mark.parametrize(("data", "said"), [
    (stl(0), "says that it has 0 facets"),
    (stl(0xFFFFFFFF), "as many as it holds are read, 12"),
    (stl(12, b"made by a scanner"), "17 bytes behind the 12 facets"),
    (stl(12), None),
])  # fmt: skip
def test_a_binary_stl_is_read_as_far_as_it_goes(data, said, tmp_path):
    (tmp_path / "a.stl").write_bytes(data)
    warnings = []
    found = read_shape(tmp_path / "a.stl", warnings.append)
    assert check_printable(found).printable and found.volume == pytest.approx(6)
    assert len(read_mesh(tmp_path / "a.stl").faces) == 12
    assert not warnings if said is None else said in warnings[0] and str(tmp_path / "a.stl") in warnings[0]


def test_a_binary_stl_that_is_cut_off_and_a_text_with_many_solids(tmp_path):
    (tmp_path / "a.stl").write_bytes(stl(12)[:-1])
    with pytest.raises(DataError, match="says that it has 12 facets, and holds 11"):
        read_shape(tmp_path / "a.stl")
    text, other = (trimesh.exchange.stl.export_stl_ascii(BOX.copy().apply_translation((at, 0, 0))) for at in (0, 9))
    (tmp_path / "b.stl").write_text(text + "\n" + other.upper().replace("\n", "\r\n"))
    assert len(read_shape(tmp_path / "b.stl").faces) == 24


# MTL


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("tex.png", "tex.png"),
        ("-s 1 1 1 tex.png", "tex.png"),
        ("-s 1 tex.png", "tex.png"),
        ("-o 0.5 .5 -t 1 2 3 -s 1 1 1 a b.png", "a b.png"),
        ("-blendu on -clamp off -bm 1.5 -mm 0 1 -imfchan l -texres 512 tex.png", "tex.png"),
        ("-mm 0 1 2.png", "2.png"),
        ('"two words.png"', "two words.png"),
        ("-no option.png", "-no option.png"),
    ],
)
def test_options_before_a_textures_name(line, name):
    assert texture_name(line) == name


@pytest.mark.parametrize(
    ("file", "mapped", "library", "materials"),
    [
        ("tex.png", "-s 1 1 1 -clamp on tex.png", "mtllib a.mtl", ["a.mtl"]),
        ("tex.png", "Tex.PNG", "mtllib A.MTL", ["a.mtl"]),
        ("TEX.png", "textures\\..\\tex.png", "mtllib .\\a.mtl", ["a.mtl"]),
        ("my tex.png", "-o 0 0 0 my tex.png", "mtllib my a.mtl", ["my a.mtl"]),
        ("maps/tex.png", "Maps\\Tex.png", "mtllib other.mtl a.mtl", ["a.mtl", "other.mtl"]),
        ("tex.png", "C:\\Users\\me\\tex.png", "mtllib other.mtl\nmtllib a.mtl", ["a.mtl", "other.mtl"]),
    ],
)
def test_textures_are_found_however_they_are_named(file, mapped, library, materials, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / file)
    (tmp_path / materials[0]).write_text(f"newmtl skin\nKd 0 0 0\nmap_Kd {mapped}\n")
    for name in materials[1:]:
        (tmp_path / name).write_text("newmtl unused\nKd 1 0 0\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
    (tmp_path / "a.obj").write_text(f"{library}\n{corners}usemtl skin\nf 1/1 2/2 3/3\n")
    said = []
    found = read_mesh(tmp_path / "a.obj", warn=said.append)
    np.testing.assert_allclose(found.colours * 255, [(200, 100, 50)], atol=1e-9)
    assert not said


def test_a_texture_beyond_the_folders_is_not_read(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    nearby = Nearby(deep / "a.obj")
    assert nearby.file("../../secret.png") is None and nearby.file(str(tmp_path / "secret.png")) is None
    os.symlink(tmp_path / "secret.png", deep / "link.png")
    assert nearby.file("link.png") is None
