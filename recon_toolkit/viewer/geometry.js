// Geometry: the formulas of recon_toolkit.geometry, in the camera's frame (x right, y down, z forward).
// Angles are in radians here and in degrees on the page.

const RADIAN = Math.PI / 180;
const CENTRE_DEPTH = 1; // the object turns about the point of the axis at this depth

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Depths in row order, from 16-bit steps between the nearest and the furthest. */
function depthsOf({ near, far, data }) {
  const steps = new Uint16Array(bytesOf(data).buffer);
  return Float64Array.from(steps, (step) => near + ((far - near) * step) / 65535);
}

/** How far every vertex lies inside the outline (> 0) or outside of it; without an outline all are inside. */
function levelsOf(data, count) {
  return data ? new Int8Array(bytesOf(data).buffer) : new Int8Array(count).fill(127);
}

/** P = depth · K⁻¹ (u, v, 1), where the field of view spans the centres of the outermost pixels. */
function backproject(depth, width, height, fov) {
  const focal = (width - 1) / 2 / Math.tan((fov * RADIAN) / 2);
  const points = new Float64Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const u = i % width, v = (i - u) / width;
    points[3 * i] = (depth[i] * (u - (width - 1) / 2)) / focal;
    points[3 * i + 1] = (depth[i] * (v - (height - 1) / 2)) / focal;
    points[3 * i + 2] = depth[i];
  }
  return points;
}

/**
 * Unit normals n = tu × tv by central differences over ±step vertices, which is one pixel of the model's own depth
 * map. Beside the edge of what is drawn the difference is one-sided, so that nothing undrawn bends the surface.
 */
function normalsOf(points, drawn, width, height, step) {
  const normals = new Float64Array(points.length);
  const reach = (i, stride, room) => {
    for (let k = Math.min(step, room); k > 0; k--) if (drawn[i + k * stride]) return i + k * stride;
    return i;
  };
  const difference = (a, b) => [0, 1, 2].map((axis) => points[3 * a + axis] - points[3 * b + axis]);
  for (let i = 0; i < drawn.length; i++) {
    if (!drawn[i]) continue;
    const u = i % width, v = (i - u) / width;
    const [ux, uy, uz] = difference(reach(i, 1, width - 1 - u), reach(i, -1, u));
    const [vx, vy, vz] = difference(reach(i, width, height - 1 - v), reach(i, -width, v));
    const normal = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
    const length = Math.hypot(...normal);
    normals.set(length > 0 ? normal.map((value) => value / length) : [0, 0, 1], 3 * i);
  }
  return normals;
}

/**
 * Triangles (v00, v10, v01) and (v01, v10, v11) of every quad, cut where the levels pass through 0.
 * The corners of the cuts are appended to the vertices.
 */
function trianglesOf(vertices, levels, width, height) {
  const triangles = [], cuts = new Map();
  const cut = (inner, outer) => {
    const key = inner * levels.length + outer;
    if (!cuts.has(key)) {
      const part = levels[inner] / (levels[inner] - levels[outer]);
      const from = vertices.slice(8 * inner, 8 * inner + 8), to = vertices.slice(8 * outer, 8 * outer + 8);
      cuts.set(key, vertices.length / 8);
      // The normal is the inner one: beyond the outline there is no surface to have one.
      vertices.push(...from.map((value, i) => (i >= 3 && i < 6 ? value : value + part * (to[i] - value))));
    }
    return cuts.get(key);
  };
  const add = (...corners) => {
    const polygon = [];
    corners.forEach((corner, i) => {
      const next = corners[(i + 1) % 3], inside = levels[corner] > 0, stays = levels[next] > 0;
      if (inside) polygon.push(corner);
      if (inside !== stays) polygon.push(inside ? cut(corner, next) : cut(next, corner));
    });
    for (let i = 2; i < polygon.length; i++) triangles.push(polygon[0], polygon[i - 1], polygon[i]);
  };
  for (let v = 0; v + 1 < height; v++) {
    for (let u = 0; u + 1 < width; u++) {
      const corner = v * width + u;
      add(corner, corner + width, corner + 1);
      add(corner + 1, corner + width, corner + width + 1);
    }
  }
  return Uint32Array.from(triangles);
}

/** What is drawn of a face: eight numbers a vertex (point, normal, place in the picture), and triangles. */
function surfaceOf({ width, height, step, fov, depth, levels: data }) {
  const levels = levelsOf(data, width * height);
  const points = backproject(depthsOf(depth), width, height, fov);
  const normals = normalsOf(points, levels.map((level) => Number(level > 0)), width, height, step);
  const vertices = [];
  for (let i = 0; i < levels.length; i++) {
    const u = i % width, v = (i - u) / width;
    vertices.push(...points.subarray(3 * i, 3 * i + 3), ...normals.subarray(3 * i, 3 * i + 3));
    vertices.push(u / (width - 1), v / (height - 1));
  }
  const triangles = trianglesOf(vertices, levels, width, height);
  return {
    vertices: Float32Array.from(vertices), triangles, near: depth.near, far: depth.far, fov,
    cells: [(width - 1) / step, (height - 1) / step], tallness: (height - 1) / (width - 1),
  };
}

/** Rx(pitch) · Ry(yaw) · Rz(roll) in column order: a positive yaw looks to the left, a positive pitch down. */
function rotationOf({ yaw, pitch, roll }) {
  const [sx, cx, sy, cy, sz, cz] = [pitch, yaw, roll].flatMap((angle) => [Math.sin(angle), Math.cos(angle)]);
  return [
    cy * cz, cx * sz + sx * sy * cz, sx * sz - cx * sy * cz,
    -cy * sz, cx * cz - sx * sy * sz, sx * cz + cx * sy * sz,
    sy, -sx * cy, cx * cy,
  ];
}

/** The pose of a view (rotation about x, y, z with R = Rz · Ry · Rx, then translation). */
function poseOf([x, y, z, ...offset]) {
  const [sx, cx, sy, cy, sz, cz] = [x, y, z].flatMap((angle) => [Math.sin(angle), Math.cos(angle)]);
  return {
    yaw: Math.asin(clamp(cz * sy * cx + sz * sx, -1, 1)),
    pitch: Math.atan2(cz * sx - sz * sy * cx, cy * cx),
    roll: Math.atan2(sz * cx - cz * sy * sx, cz * cy),
    offset,
    zoom: 1,
  };
}

/** Where light that travels in a unit direction comes from: angles to the right and up. */
function anglesOf([x, y, z]) {
  return { right: Math.atan2(-x, z), up: Math.asin(clamp(y, -1, 1)) };
}

/** A light of five numbers: ambient and diffuse strength, direction of travel. */
function lightOf([ambient, diffuse, ...travel]) {
  return { ambient, diffuse, ...anglesOf(travel) };
}

/** The direction in which light travels that comes from there. */
function travelOf({ right, up }) {
  return [-Math.sin(right) * Math.cos(up), Math.sin(up), Math.cos(right) * Math.cos(up)];
}
