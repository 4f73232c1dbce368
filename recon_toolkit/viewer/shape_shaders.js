// The two shaders of shapes. The light stays with the viewer, so that whatever is turned to us can be read.

const SHAPE_VERTEX_SHADER = `#version 300 es
layout(location = 0) in vec3 point;
layout(location = 1) in vec3 normal;
uniform mat3 rotation;
uniform float focal;
uniform float diameter;  // of points, in pixels of the screen at the depth of the centre
uniform float lift;      // how much nearer than they are points count, so that they lie on the surface
uniform float size;      // radius of what fits into the picture
uniform vec2 heights;    // bottom and top, y downwards
out vec3 turnedNormal;
out vec3 turnedPoint;
out float height;        // 0 at the bottom, 1 at the top
const vec3 centre = vec3(0.0, 0.0, 1.0);
const float near = 0.05, far = 4.0;
void main() {
  vec3 p = rotation * (point - centre) + centre;
  float z = p.z - lift * size;
  float projected = (far + near) / (far - near) - 2.0 * far * near / (far - near) / z;
  gl_Position = vec4(focal * p.x, -focal * p.y, projected * p.z, p.z);
  gl_PointSize = max(1.0, diameter / p.z);
  turnedNormal = rotation * normal;
  turnedPoint = p;
  height = clamp((point.y - heights.x) / min(heights.y - heights.x, -1e-6), 0.0, 1.0);
}`;

const SHAPE_FRAGMENT_SHADER = `#version 300 es
precision highp float;
precision highp int;
in vec3 turnedNormal;
in vec3 turnedPoint;
in float height;
uniform int paint;      // 0: the surface, 1: points by their normals, 2: points by their height, 3: points upon it
uniform float diameter;
uniform float size;
out vec4 colour;
const vec3 plain = vec3(0.72, 0.79, 0.86), marked = vec3(0.93, 0.42, 0.10);

// Key light from the upper left behind the viewer, some from the right, and a sky above.
float lighting(vec3 n) {
  float key = max(0.0, dot(n, normalize(vec3(-0.45, -0.60, -0.75))));
  float fill = max(0.0, dot(n, normalize(vec3(0.80, 0.10, -0.50))));
  float sky = 0.5 - 0.5 * n.y;
  return 0.22 + 0.16 * sky + 0.70 * key + 0.14 * fill;
}

// From dark blue over green to yellow, as light as it is high: between the colours of viridis (van der Walt and Smith).
vec3 ramp(float t) {
  vec3 low = mix(vec3(0.27, 0.13, 0.46), vec3(0.19, 0.41, 0.56), clamp(3.0 * t, 0.0, 1.0));
  vec3 high = mix(vec3(0.21, 0.67, 0.47), vec3(0.90, 0.80, 0.16), clamp(3.0 * t - 2.0, 0.0, 1.0));
  return mix(low, high, clamp(3.0 * t - 1.0, 0.0, 1.0));
}

void main() {
  if (paint != 0) {
    vec2 place = 2.0 * gl_PointCoord - 1.0;
    if (diameter > 2.5 && dot(place, place) > 1.0) discard;
  }
  float away = clamp(0.5 + 0.5 * (turnedPoint.z - 1.0) / size, 0.0, 1.0);  // 0 nearest, 1 furthest
  vec3 eye = -normalize(turnedPoint);
  bool lit = dot(turnedNormal, turnedNormal) > 0.25;
  vec3 n = lit ? normalize(turnedNormal) : eye;
  // A surface shows its side; estimated normals of points may point either way.
  if (paint == 0 ? !gl_FrontFacing : dot(n, eye) < 0.0) n = -n;
  vec3 c = paint == 2 ? ramp(height) : paint == 3 ? marked : plain;
  if (lit) {
    float slant = 1.0 - max(0.0, dot(n, eye));
    c *= lighting(n) * (1.0 - 0.4 * slant * slant * slant);  // darker towards the outline, against a bright page
  }
  c *= paint == 2 ? mix(1.08, 0.55, away) : mix(1.04, 0.82, away);
  colour = vec4(clamp(c, 0.0, 1.0), 1.0);
}`;
