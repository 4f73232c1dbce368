// The two shaders. Points and normals are in the canonical camera's frame; the light stays with the object.

const VERTEX_SHADER = `#version 300 es
layout(location = 0) in vec3 point;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 place;
uniform mat3 rotation;
uniform vec3 offset;
uniform float focal;
out vec3 surfaceNormal;
out vec2 surfacePlace;
out float surfaceDepth;
const vec3 centre = vec3(0.0, 0.0, 1.0);
const float near = 0.05, far = 4.0;
void main() {
  vec3 p = rotation * (point - centre) + centre + offset;
  gl_Position = vec4(focal * p.x, -focal * p.y, (p.z * (far + near) - 2.0 * far * near) / (far - near), p.z);
  surfaceNormal = normal;
  surfacePlace = place;
  surfaceDepth = point.z;
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
precision highp int;
in vec3 surfaceNormal;
in vec2 surfacePlace;
in float surfaceDepth;
uniform int mode;
uniform bool lit;
uniform vec2 strength, predictedStrength;  // ambient, diffuse
uniform vec3 travel, predictedTravel;      // unit direction of the light
uniform vec2 range;                        // nearest and furthest depth
uniform vec2 cells;
uniform float pixels;                      // device pixels in a pixel of the page
uniform sampler2D photo, albedo;
out vec4 colour;

float shading(vec2 strength, vec3 travel, vec3 n) {
  return strength.x + strength.y * max(0.0, dot(n, travel));
}

// The first and the last place are the centres of the outermost pixels (align_corners).
vec3 picture(sampler2D source) {
  vec2 size = vec2(textureSize(source, 0));
  return texture(source, (surfacePlace * (size - 1.0) + 0.5) / size).rgb;
}

// 1 on the lines where x is a whole number, which are this many pixels wide.
float line(float x, float width) {
  float away = abs(fract(x - 0.5) - 0.5) / max(fwidth(x), 1e-6);
  return 1.0 - smoothstep(0.5 * width * pixels - 0.5, 0.5 * width * pixels + 0.5, away);
}

void main() {
  vec3 n = normalize(surfaceNormal);
  float now = shading(strength, travel, n);
  float predicted = shading(predictedStrength, predictedTravel, n);
  float nearness = (range.y - surfaceDepth) / max(range.y - range.x, 1e-6);
  vec3 c;
  if (mode == 0) {
    c = picture(photo) * clamp(now / max(predicted, 0.05), 0.0, 4.0);
  } else if (mode == 1) {
    c = picture(albedo) * (lit ? now : 1.0);
  } else if (mode == 2) {
    c = vec3(now / max(1.0, predictedStrength.x + predictedStrength.y));
  } else if (mode == 3) {
    c = 0.5 + 0.5 * vec3(-n.x, n.y, n.z);
  } else if (mode == 4) {
    c = vec3(0.1 + 0.9 * nearness) * (1.0 - 0.22 * line(nearness * 12.0, 1.0));
  } else {
    vec2 cell = surfacePlace * cells;
    float straight = max(line(cell.x, 1.0), line(cell.y, 1.0));
    float wire = max(0.65 * straight, 0.3 * line(cell.x + cell.y, 1.0));
    float lightness = now / max(0.4, predictedStrength.x + predictedStrength.y);
    c = mix(vec3(0.93, 0.94, 0.95) * (0.15 + 0.85 * lightness * lightness), vec3(0.13, 0.30, 0.47), wire);
  }
  if (!gl_FrontFacing) c = mix(vec3(dot(c, vec3(0.3, 0.6, 0.1))), vec3(0.5), 0.6) * 0.6;  // the inside
  colour = vec4(clamp(c, 0.0, 1.0), 1.0);
}`;
