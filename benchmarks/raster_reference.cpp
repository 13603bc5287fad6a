// The reference of raster_time.py: a plain loop over triangles and the pixels of their boxes, with the same pixels as
// torch_rasterizer. Built with: c++ -O3 -shared -fPIC -ffp-contract=off raster_reference.cpp
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

struct Vertex {
    float x, y, z, w;
};

Vertex project(const float* v, int width, int height) {
    const float w = v[3];
    return {((v[0] / w) * 0.5f + 0.5f) * float(width - 1) + 0.5f, (0.5f + (0.5f * v[1]) / w) * float(height - 1) + 0.5f,
            (v[2] / w) * 0.49999f + 0.5f, w};
}

float area(float ax, float ay, float bx, float by, float cx, float cy) {
    return (cx - ax) * (by - ay) - (bx - ax) * (cy - ay);
}

bool barycentric(const Vertex* t, float px, float py, float* out) {
    const float whole = area(t[0].x, t[0].y, t[1].x, t[1].y, t[2].x, t[2].y);
    if (whole == 0.0f) return false;
    const float inverse = 1.0f / whole;
    const float beta = area(t[0].x, t[0].y, px, py, t[2].x, t[2].y) * inverse;
    const float gamma = area(t[0].x, t[0].y, t[1].x, t[1].y, px, py) * inverse;
    out[0] = float(1.0 - beta - gamma);
    out[1] = beta;
    out[2] = gamma;
    return out[0] >= 0.0f && out[0] <= 1.0f && beta >= 0.0f && beta <= 1.0f && gamma >= 0.0f && gamma <= 1.0f;
}

constexpr int64_t kBase = std::numeric_limits<int32_t>::max();
constexpr int64_t kEmpty = std::numeric_limits<int64_t>::max();

void draw(const Vertex* t, int64_t id, int width, int height, int64_t* zbuffer) {
    const float left = std::min({t[0].x, t[1].x, t[2].x}), right = std::max({t[0].x, t[1].x, t[2].x});
    const float top = std::min({t[0].y, t[1].y, t[2].y}), bottom = std::max({t[0].y, t[1].y, t[2].y});
    float b[3];
    for (int y = std::max(0, int(top)); y < height && y < bottom + 1; ++y) {
        for (int x = std::max(0, int(left)); x < width && x < right + 1; ++x) {
            if (!barycentric(t, x + 0.5f, y + 0.5f, b)) continue;
            const float depth = b[0] * t[0].z + b[1] * t[1].z + b[2] * t[2].z;
            if (depth < 0.0f) continue;
            const int64_t token = int64_t(int(depth * 262144.0f)) * kBase + id;
            int64_t& cell = zbuffer[int64_t(y) * width + x];
            cell = std::min(cell, token);
        }
    }
}

}  // namespace

// positions [vertices, 4], faces [count, 3] -> ids [height, width], barycentrics [height, width, 3]
extern "C" void rasterize(const float* positions, const int32_t* faces, int64_t count, int width, int height, int32_t* ids,
                          float* barycentrics) {
    std::vector<int64_t> zbuffer(int64_t(width) * height, kEmpty);
    Vertex t[3];
    for (int64_t face = 0; face < count; ++face) {
        for (int k = 0; k < 3; ++k) t[k] = project(positions + 4 * int64_t(faces[3 * face + k]), width, height);
        draw(t, face + 1, width, height, zbuffer.data());
    }
    for (int64_t pixel = 0; pixel < int64_t(width) * height; ++pixel) {
        float* out = barycentrics + 3 * pixel;
        out[0] = out[1] = out[2] = 0.0f;
        ids[pixel] = 0;
        if (zbuffer[pixel] == kEmpty) continue;
        const int64_t face = zbuffer[pixel] % kBase - 1;
        ids[pixel] = int32_t(face + 1);
        for (int k = 0; k < 3; ++k) t[k] = project(positions + 4 * int64_t(faces[3 * face + k]), width, height);
        barycentric(t, float(pixel % width) + 0.5f, float(pixel / width) + 0.5f, out);
        for (int k = 0; k < 3; ++k) out[k] = out[k] / t[k].w;
        const float scale = 1.0f / (out[0] + out[1] + out[2]);
        for (int k = 0; k < 3; ++k) out[k] *= scale;
    }
}
