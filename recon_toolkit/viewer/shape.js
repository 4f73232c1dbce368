// Geometry of shapes: points and meshes of a frame with z up, as six numbers each (point, normal) in the camera's frame
// (x right, y down, z forward), in which they fit into the picture. Their front, which looks along −y, is towards us.

const SHAPE_FOV = 30; // degrees, across the canvas where a shape just fits into it
const SHAPE_SIZE = Math.sin((SHAPE_FOV * RADIAN) / 2); // the radius of a sphere about the centre that touches its sides
const CREASE = Math.cos(60 * RADIAN); // faces that meet at a sharper edge are lit apart
const DIRECTION = 127; // of a normal's signed bytes

/** Points in the camera's frame: x, −z, y about the middle, in a scale at which the radius fits. */
function placed(data, { low, high, centre, radius }) {
  const steps = new Uint16Array(bytesOf(data).buffer), points = new Float32Array(steps.length);
  const scale = SHAPE_SIZE / radius;
  const part = (i, axis) => scale * (low[axis] + ((high[axis] - low[axis]) * steps[i + axis]) / 65535 - centre[axis]);
  for (let i = 0; i < steps.length; i += 3) {
    points[i] = part(i, 0);
    points[i + 1] = -part(i, 2);
    points[i + 2] = CENTRE_DEPTH + part(i, 1);
  }
  return points;
}

/** Points and normals in turn; without normals they are 0. */
function dotsOf(scene) {
  if (!scene.points) return new Float32Array(0);
  const points = placed(scene.points.data, scene), dots = new Float32Array(2 * points.length);
  const normals = scene.points.normals && new Int8Array(bytesOf(scene.points.normals).buffer);
  for (let i = 0; i < points.length; i += 3) {
    dots.set(points.subarray(i, i + 3), 2 * i);
    if (normals) dots.set([normals[i], -normals[i + 2], normals[i + 1]].map((value) => value / DIRECTION), 2 * i + 3);
  }
  return dots;
}

/** Normals of faces as long as twice the area, by corners of the face. */
function crossesOf(points, faces) {
  const crosses = new Float64Array(faces.length);
  for (let i = 0; i < faces.length; i += 3) {
    const [a, b, c] = [3 * faces[i], 3 * faces[i + 1], 3 * faces[i + 2]];
    const ux = points[b] - points[a], uy = points[b + 1] - points[a + 1], uz = points[b + 2] - points[a + 2];
    const vx = points[c] - points[a], vy = points[c + 1] - points[a + 1], vz = points[c + 2] - points[a + 2];
    crosses[i] = uy * vz - uz * vy;
    crosses[i + 1] = uz * vx - ux * vz;
    crosses[i + 2] = ux * vy - uy * vx;
  }
  return crosses;
}

/** The faces around every vertex: those of v are `around[starts[v]] … around[starts[v + 1] − 1]`, each as 3 · face. */
function facesAround(faces, count) {
  const starts = new Uint32Array(count + 1), around = new Uint32Array(faces.length);
  for (const vertex of faces) starts[vertex + 1] += 1;
  for (let v = 0; v < count; v++) starts[v + 1] += starts[v];
  const next = starts.slice();
  faces.forEach((vertex, i) => (around[next[vertex]++] = i - (i % 3)));
  return { starts, around };
}

/**
 * Corners of the triangles, each with a smooth normal: the mean by area over the faces around its vertex, of which only
 * those count that do not meet the corner's own face at a crease.
 */
function cornersOf(scene) {
  if (!scene.surface) return new Float32Array(0);
  const { data, bits, faces: indices } = scene.surface;
  const points = placed(data, scene), faces = new (bits === 16 ? Uint16Array : Uint32Array)(bytesOf(indices).buffer);
  const crosses = crossesOf(points, faces), { starts, around } = facesAround(faces, points.length / 3);
  const lengths = new Float64Array(faces.length / 3);
  for (let f = 0; f < lengths.length; f++) lengths[f] = Math.hypot(...crosses.subarray(3 * f, 3 * f + 3));
  const corners = new Float32Array(6 * faces.length);
  for (let i = 0; i < faces.length; i++) {
    const own = i - (i % 3), vertex = faces[i];
    let x = 0, y = 0, z = 0;
    for (let k = starts[vertex]; k < starts[vertex + 1]; k++) {
      const other = around[k];
      const dot = crosses[own] * crosses[other] + crosses[own + 1] * crosses[other + 1]
        + crosses[own + 2] * crosses[other + 2];
      if (dot < CREASE * lengths[own / 3] * lengths[other / 3]) continue;
      x += crosses[other];
      y += crosses[other + 1];
      z += crosses[other + 2];
    }
    const length = Math.hypot(x, y, z) || 1;
    corners.set(points.subarray(3 * vertex, 3 * vertex + 3), 6 * i);
    corners.set([x / length, y / length, z / length], 6 * i + 3);
  }
  return corners;
}

/** What is drawn of a shape: points and corners of triangles, and between which heights (y downwards) they lie. */
function drawableOf(scene) {
  const scale = SHAPE_SIZE / scene.radius;
  const height = (z) => clamp(scale * (scene.centre[2] - z), -SHAPE_SIZE, SHAPE_SIZE);
  return {
    dots: dotsOf(scene), corners: cornersOf(scene), oriented: Boolean(scene.points?.normals),
    bottom: height(scene.low[2]), top: height(scene.high[2]),
  };
}
