// The reference of hierarchy_time.py: the grid hierarchy as a simple loop over pixels and cells with a map from keys to
// cells. Table is std::map, or std::unordered_map with -DHASHED.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <unordered_map>
#include <vector>

#ifdef HASHED
using Table = std::unordered_map<int32_t, int32_t>;
#else
using Table = std::map<int32_t, int32_t>;
#endif

namespace {

struct Point { float c[3]; };
struct Nine { int64_t cell[9]; };

const int kDepthAxis[3] = {2, 0, 1};

struct View {
  const float* positions;
  const float* normals;
  int layers, height, width;
  const float* at(int layer, int row, int column) const {
    return positions + ((int64_t(layer) * height + row) * width + column) * 4;
  }
  bool valid(int layer, int row, int column) const { return layer < layers && at(layer, row, column)[3] > 0; }
};

struct Level {
  int resolution, stride;
  Table table;
  std::vector<int32_t> keys, views;
  std::vector<int64_t> down, even, odd;
  std::vector<Nine> neighbours;
};

int32_t key_of(const float* p, int resolution) {
  int x = (p[0] * 0.5 + 0.5) * resolution, y = (p[1] * 0.5 + 0.5) * resolution, z = (p[2] * 0.5 + 0.5) * resolution;
  return (x * resolution + y) * resolution + z;
}

Point point_in(int32_t key, int resolution, double ox = 0.5, double oy = 0.5, double oz = 0.5) {
  int z = key % resolution, y = key / resolution % resolution, x = key / resolution / resolution;
  return {{float(((x + ox) / resolution - 0.5) * 2), float(((y + oy) / resolution - 0.5) * 2),
           float(((z + oz) / resolution - 0.5) * 2)}};
}

void pixel_of(const Point& p, int view, const View& size, int& row, int& column) {
  double down = view == 2 ? -p.c[2] : p.c[1], across = view == 1 ? p.c[2] : p.c[0];
  row = (down / 2 + 0.5) * size.height;
  column = (across / 2 + 0.5) * size.width;
}

struct Hierarchy {
  View views[3];
  std::vector<Level> levels;
  std::vector<Point> points;
  std::vector<float> mask;

  void finest(int resolution) {
    levels.emplace_back();
    Level& level = levels.back();
    level.resolution = resolution;
    level.stride = 1;
    for (const View& view : views)
      for (int layer = 0; layer < view.layers; ++layer)
        for (int row = 0; row < view.height; ++row)
          for (int column = 0; column < view.width; ++column) {
            const float* p = view.at(layer, row, column);
            if (!(p[3] > 0)) continue;
            int32_t key = key_of(p, resolution);
            if (!level.table.emplace(key, int32_t(level.keys.size())).second) continue;
            level.keys.push_back(key);
            points.push_back({{p[0], p[1], p[2]}});
            mask.push_back(1);
            const float* n = view.normals + (p - view.positions) / 4 * 3;
            int axis = 0;
            for (int i = 1; i < 3; ++i)
              if (std::fabs(n[i]) > std::fabs(n[axis])) axis = i;
            level.views.push_back((axis + 1) % 3);
          }
  }

  void coarser() {
    levels.emplace_back();
    Level &level = levels.back(), &fine = levels[levels.size() - 2];
    level.resolution = fine.resolution / 2;
    level.stride = fine.stride * 2;
    std::vector<std::array<int, 3>> votes;
    for (size_t cell = 0; cell < fine.keys.size(); ++cell) {
      Point centre = point_in(fine.keys[cell], fine.resolution);
      int32_t key = key_of(centre.c, level.resolution);
      auto place = level.table.emplace(key, int32_t(level.keys.size()));
      if (place.second) {
        level.keys.push_back(key);
        votes.push_back({0, 0, 0});
      }
      fine.down.push_back(place.first->second);
      ++votes[place.first->second][fine.views[cell]];
    }
    for (const auto& vote : votes) {
      int best = 0;
      for (int i = 1; i < 3; ++i)
        if (vote[i] > vote[best]) best = i;
      level.views.push_back(best);
    }
  }

  enum Choice { kNearest, kFirst, kLast };

  Nine nine(Level& level, int64_t cell, int v, const Point& centre, Choice choice) {
    const View& view = views[v];
    Nine found;
    int ci, cj, slot = 0;
    pixel_of(centre, v, view, ci, cj);
    for (int row = ci + level.stride; row >= ci - level.stride; row -= level.stride)
      for (int column = cj - level.stride; column <= cj + level.stride; column += level.stride, ++slot) {
        found.cell[slot] = slot == 4 ? cell : -1;
        if (slot == 4 || row < 0 || row >= view.height || column < 0 || column >= view.width) continue;
        float nearest = INFINITY;
        int32_t best = 0;
        int layer = 0;
        for (; view.valid(layer, row, column); ++layer) {
          int32_t key = key_of(view.at(layer, row, column), level.resolution);
          float gap = std::fabs(point_in(key, level.resolution).c[kDepthAxis[v]] - centre.c[kDepthAxis[v]]);
          if (choice == kNearest ? gap < nearest : choice == kLast || layer == 0) nearest = gap, best = key;
        }
        if (layer) found.cell[slot] = level.table[best];
      }
    return found;
  }

  void visit(Level& level) {
    size_t count = level.keys.size();
    Nine none;
    for (int64_t& cell : none.cell) cell = -1;
    level.neighbours.assign(count, none);
    level.even.assign(count, 0);
    level.odd.assign(count, 0);
    std::vector<char> visited(count, 0);
    for (int v = 0; v < 3; ++v)
      for (int vd = 0; vd < 3; ++vd)
        for (int row = 0; row < views[vd].height; ++row)
          for (int column = 0; column < views[vd].width; ++column)
            for (int layer = 0; views[vd].valid(layer, row, column); ++layer) {
              int32_t key = key_of(views[vd].at(layer, row, column), level.resolution);
              int32_t cell = level.table[key];
              if (level.views[cell] != v) continue;
              Point centre = point_in(key, level.resolution);
              int ci, cj, s = level.stride;
              pixel_of(centre, v, views[v], ci, cj);
              if (ci % (2 * s) < s && cj % (2 * s) >= s) level.even[cell] = 1;
              if (ci % (2 * s) >= s && cj % (2 * s) < s) level.odd[cell] = 1;
              if (visited[cell]) continue;
              visited[cell] = 1;
              bool last = vd == v && !views[vd].valid(layer + 1, row, column);
              level.neighbours[cell] = nine(level, cell, v, centre, !last ? kNearest : layer ? kLast : kFirst);
            }
  }

  void pad(Level& coarse, Level& fine, bool finest) {
    std::vector<char> even(coarse.keys.size(), 0), odd(coarse.keys.size(), 0);
    for (size_t cell = 0; cell < fine.down.size(); ++cell) {
      even[fine.down[cell]] |= fine.even[cell] != 0;
      odd[fine.down[cell]] |= fine.odd[cell] != 0;
    }
    for (size_t parent = 0; parent < coarse.keys.size(); ++parent) {
      if (even[parent] && odd[parent]) continue;
      Point corner = point_in(coarse.keys[parent], coarse.resolution, 0.75, 0.25, 0.75);
      auto place = fine.table.emplace(key_of(corner.c, fine.resolution), int32_t(fine.keys.size()));
      if (place.second) {
        fine.keys.push_back(place.first->first);
        fine.views.push_back(coarse.views[parent]);
        fine.down.push_back(parent);
        fine.even.push_back(0);
        fine.odd.push_back(0);
        fine.neighbours.push_back(nine(fine, place.first->second, coarse.views[parent], corner, kNearest));
        if (finest) points.push_back(corner), mask.push_back(0);
      }
      if (!even[parent]) fine.even[place.first->second] = 1;
      if (!odd[parent]) fine.odd[place.first->second] = 1;
    }
  }
};

}  // namespace

extern "C" {

// positions and normals: three arrays [L, H, W, 4] and [L, H, W, 3]. shapes: L, H, W of each array.
void* build(const float** positions, const float** normals, const int32_t* shapes, int num_level, int resolution) {
  auto* out = new Hierarchy;
  for (int v = 0; v < 3; ++v)
    out->views[v] = {positions[v], normals[v], shapes[3 * v], shapes[3 * v + 1], shapes[3 * v + 2]};
  out->levels.reserve(num_level);
  out->finest(resolution);
  while (int(out->levels.size()) < num_level) out->coarser();
  for (Level& level : out->levels) out->visit(level);
  for (int depth = num_level - 1; depth > 0; --depth) out->pad(out->levels[depth], out->levels[depth - 1], depth == 1);
  return out;
}

int64_t cells(const void* handle, int level) { return static_cast<const Hierarchy*>(handle)->levels[level].keys.size(); }

// Copies the results of one level; down may be null.
void copy_level(const void* handle, int index, int64_t* neighbours, int64_t* down, int64_t* even, int64_t* odd) {
  const Level& level = static_cast<const Hierarchy*>(handle)->levels[index];
  std::memcpy(neighbours, level.neighbours.data(), level.neighbours.size() * sizeof(Nine));
  if (down) std::memcpy(down, level.down.data(), level.down.size() * 8);
  std::memcpy(even, level.even.data(), level.even.size() * 8);
  std::memcpy(odd, level.odd.data(), level.odd.size() * 8);
}

void copy_cloud(const void* handle, float* points, float* mask) {
  const auto* from = static_cast<const Hierarchy*>(handle);
  std::memcpy(points, from->points.data(), from->points.size() * sizeof(Point));
  std::memcpy(mask, from->mask.data(), from->mask.size() * 4);
}

void destroy(void* handle) { delete static_cast<Hierarchy*>(handle); }
}
