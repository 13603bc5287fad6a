// Shades the faces of blocks; shading.py computes the same on the CPU.

struct Camera {
  viewProjection: mat4x4<f32>,
};

@group(0) @binding(0) var<uniform> camera: Camera;

const SKY = vec3<f32>(0.53, 0.81, 0.92);
const HORIZON = vec3<f32>(0.18, 0.16, 0.12);
const SUN = vec3<f32>(1.0, 0.97, 0.9);
const TOWARD_SUN = vec3<f32>(0.4, 0.85, 0.5);

struct Corner {
  @builtin(position) position: vec4<f32>,
  @location(0) normal: vec3<f32>,
  @location(1) color: vec3<f32>,
};

@vertex
fn corner(
  @location(0) position: vec3<f32>,
  @location(1) normal: vec3<f32>,
  @location(2) color: vec3<f32>,
) -> Corner {
  return Corner(camera.viewProjection * vec4<f32>(position, 1.0), normal, color);
}

@fragment
fn pixel(at: Corner) -> @location(0) vec4<f32> {
  let up = clamp(0.5 * at.normal.y + 0.5, 0.0, 1.0);
  let ambient = 0.55 * mix(HORIZON, SKY, up);
  let direct = max(dot(at.normal, normalize(TOWARD_SUN)), 0.0) * SUN;
  return vec4<f32>(at.color * (ambient + direct), 1.0);
}
