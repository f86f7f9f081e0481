// Products of 16-bit integers beside those of doubles: whatever the numbers, no sum may leave 32 bits, and both kernels
// with AVX2 compute the same bits. Prints their largest error as a part of the product of both lengths.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#ifdef WITH_AMXINT16
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "integers.h"
#include "kernels.h"
#include "weights.h"

namespace {

std::mt19937 generator(1);

// Numbers of one of several kinds; 0 is the worst for overflow, because rows and weights are all alike.
std::vector<float> numbers(int kind, int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> made(static_cast<size_t>(n));
  for (size_t i = 0; i < made.size(); i++) {
    const float x = normal(generator);
    switch (kind) {
      case 0: made[i] = 3.7f; break;
      case 1: made[i] = i % 2 ? -1e20f : 1e20f; break;  // squares are no floats
      case 2: made[i] = x; break;
      case 3: made[i] = i % 97 == 5 ? 1000 * x : x; break;  // a few columns are far larger, as in trained models
      case 4: made[i] = i == 0 ? -2.0f : 0.0f; break;
      case 5: made[i] = 1e-21f * x; break;
      default: made[i] = 0.0f;
    }
  }
  return made;
}

typedef std::vector<float> Floats;

Floats product(const Kernels &kernels, const Floats &a, const Floats &weights, int64_t m, int64_t n, int64_t k,
               int64_t stride) {
  const Packed packed = pack({weights.data(), nullptr}, {0, n, k}, kernels);
  const int64_t wide = (n + kernels.columns - 1) / kernels.columns * kernels.columns;
  std::vector<float> x(static_cast<size_t>(m * wide));
  const Aligned scratch(kernels.product_bytes(m, k));
  Product p{};
  p.a = a.data();
  p.a_stride = stride;
  p.panels = reinterpret_cast<const uint32_t *>(packed.panels.at);
  p.bias = reinterpret_cast<const float *>(packed.bias.at);
  p.steps = reinterpret_cast<const float *>(packed.steps.at);
  p.scratch = scratch.at;
  p.m = m, p.n = n, p.k = k;
  p.epilogue = ADD;
  p.activation = -1;
  p.x = x.data();
  p.x_stride = wide;
  kernels.product(&p);
  std::vector<float> out;
  for (int64_t r = 0; r < m; r++) out.insert(out.end(), x.begin() + r * wide, x.begin() + r * wide + n);
  return out;
}

double dot(const float *a, const float *b, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; i++) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

bool hides_what_is_not_finite(const Kernels &kernels) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Floats one(40, 1.0f), spoilt(40, 1.0f);
    spoilt[17] = bad;
    for (const bool in_rows : {true, false})
      if (std::isfinite(product(kernels, in_rows ? spoilt : one, in_rows ? one : spoilt, 1, 1, 40, 40)[0])) {
        std::printf("%g became a number\n", static_cast<double>(bad));
        return true;
      }
  }
  return false;
}

#ifdef WITH_AMXINT16
// Half a step in each number of a row and of the weights, and what products of two low bytes would add: numbers that are
// all alike or of one size have the same low bytes everywhere.
bool bytes_are_near(const Kernels &kernels) {
  for (const int64_t k : {1, 2, 15, 63, 64, 65, 384, 1000, 8192, 65536})
    for (int rows = 0; rows < 7; rows++)
      for (int columns = 0; columns < 7; columns++) {
        const int64_t m = k > 1000 ? 2 : 37, n = k > 1000 ? 3 : 35, stride = k + 3;
        Floats a(static_cast<size_t>(m * stride), NAN);
        const Floats weights = numbers(columns, n * k), flat = numbers(rows, m * k);
        for (int64_t r = 0; r < m; r++) std::copy_n(flat.begin() + r * k, k, a.begin() + r * stride);
        const Floats found = product(kernels, a, weights, m, n, k, stride);
        for (int64_t r = 0; r < m; r++)
          for (int64_t c = 0; c < n; c++) {
            const float *x = flat.data() + r * k, *w = weights.data() + c * k;
            const double got = found[static_cast<size_t>(r * n + c)], exact = dot(x, w, k);
            double most_x = 0, most_w = 0;
            for (int64_t i = 0; i < k; i++) {
              most_x = std::fmax(most_x, std::fabs(x[i]));
              most_w = std::fmax(most_w, std::fabs(w[i]));
            }
            if (most_x * most_w * static_cast<double>(k) > 1e38) continue;  // nor are products
            const double step_x = most_x / MOST_IN_BYTES, step_w = most_w / MOST_IN_BYTES, root = std::sqrt(k);
            const double rounding = step_x * std::sqrt(dot(w, w, k)) * root + step_w * std::sqrt(dot(x, x, k)) * root;
            const double left_out = 128.0 * 128.0 * step_x * step_w * static_cast<double>(k);
            const double of_floats = 1e-6 * most_x * most_w * static_cast<double>(k) + 1e-30;
            if (!(std::fabs(got - exact) <= 0.51 * rounding + left_out + of_floats)) {
              std::printf("bytes: k = %d, kinds %d, %d: %g and not %g\n", static_cast<int>(k), rows, columns, got, exact);
              return false;
            }
          }
      }
  return true;
}
#endif

}  // namespace

int main() {
  const Kernels &plain = *kernels_avx2int16(2);
  double worst = 0;
  for (const int64_t k : {1, 2, 15, 16, 33, 384, 512, 1000, 8192, 65536})
    for (int rows = 0; rows < 7; rows++)
      for (int columns = 0; columns < 7; columns++) {
        const int64_t m = k > 1000 ? 2 : 7, n = k > 1000 ? 3 : 19, stride = k + 3;
        std::vector<float> a(static_cast<size_t>(m * stride), NAN);  // what lies between rows is not read
        const std::vector<float> weights = numbers(columns, n * k), flat = numbers(rows, m * k);
        for (int64_t r = 0; r < m; r++) std::copy_n(flat.begin() + r * k, k, a.begin() + r * stride);
        const std::vector<float> found = product(plain, a, weights, m, n, k, stride);
#ifdef WITH_AVXVNNI
        const std::vector<float> other = product(*kernels_avxvnni(2), a, weights, m, n, k, stride);
        if (std::memcmp(found.data(), other.data(), found.size() * 4)) {
          std::printf("kernels differ at k = %d\n", static_cast<int>(k));
          return 1;
        }
#endif
        for (int64_t r = 0; r < m; r++)
          for (int64_t c = 0; c < n; c++) {
            const float *x = flat.data() + r * k, *w = weights.data() + c * k;
            const double got = found[static_cast<size_t>(r * n + c)], exact = dot(x, w, k);
            const double whole = std::sqrt(dot(x, x, k) * dot(w, w, k)), apart = std::fabs(got - exact);
            if (whole > 1e38) continue;  // nor are products
            // Half a step in each number of a row, and in each of the weights.
            if (!(apart <= (1.05 * std::sqrt(k) / MOST_LENGTH + 1e-6) * whole + 1e-30)) {
              std::printf("k = %d, kinds %d and %d: %g and not %g\n", static_cast<int>(k), rows, columns, got, exact);
              return 1;
            }
            if (whole > 1e-25) worst = std::fmax(worst, apart / whole);
          }
      }
  if (hides_what_is_not_finite(plain)) return 1;
#ifdef WITH_AMXINT16
  const Kernels &tiles = *kernels_amxint16(2);
  // A process must ask for tiles.
  if (syscall(SYS_arch_prctl, 0x1023, 18)) return 2;
  tiles.enter();
  const bool wrong = !bytes_are_near(tiles) || hides_what_is_not_finite(tiles);
  tiles.leave();
  if (wrong) return 1;
#endif
  std::printf("%g\n", worst);
}
