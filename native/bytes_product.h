// AMX: products of 16-bit integers, each two signed bytes (integers.h). Included after tier.h.
//
// A block has 16 rows and 32 columns. Tiles 0 and 2 add up high bytes times high ones, left and right; 1 and 3 high ones
// times low ones; 4 and 5 are a step of the rows, high and low; 6 and 7 one of the columns. As in tile_product.h, vectors
// finish the block before meanwhile.
#pragma once

#include "integer_rows.h"
#include "tile_registers.h"

namespace {

constexpr int64_t SIDE_BYTES = 16;   // columns of a tile
constexpr int64_t BLOCK = 16;        // rows of a tile
constexpr int64_t STEP_WORDS = STEP / 2;  // of a row or a column, high and low bytes
constexpr int64_t TILE = 16 * 16;    // sums in a tile

// Float32 with functions for what becomes 16-bit integers, which need fewer instructions and no division.
struct Results : Float32 {
  // As bfloat16's (operand.h) with a polynomial of degree 5 (error 1.5e-7). What x log2(e) is rounded by makes the relative
  // error 5e-6 at e^-87, and under 1e-6 of shares that are not lost beside the largest.
  static INLINE Vector e(Vector v) {
    // Of two operands of which one is NaN the processor gives the second.
    const Vector x = (Vector)_mm512_max_ps(_mm512_set1_ps(-87.0f), (__m512)v) * 1.44269504088896341f;
    const Vector f = (Vector)_mm512_reduce_ps((__m512)x, 1);
    Vector p = 1.87757669e-03f * f + 8.98933969e-03f;
    p = p * f + 5.58263175e-02f;
    p = p * f + 2.40153611e-01f;
    p = p * f + 6.93153083e-01f;
    p = p * f + 9.99999940e-01f;
    return (Vector)_mm512_scalef_ps((__m512)p, (__m512)x);
  }
  // As bfloat16's, with twice the stretches and cubes in the place of squares, error 1.8e-6. With Float32's own a whole pass
  // took an eighth longer.
  template <int N> static INLINE void gelu(Vector (&x)[N]) {
    alignas(64) static const float bump[4][32] = {
        {1.255985609e-07f, 1.770945382e-04f, 2.555028070e-03f, 6.685911212e-03f, -6.248998397e-05f, -4.125604033e-02f,
         -1.351221800e-01f, -2.757827640e-01f, -4.291223288e-01f, -5.482546687e-01f, -5.975368023e-01f, -5.683828592e-01f,
         -4.792048931e-01f, -3.619506955e-01f, -2.468694597e-01f, -1.529666930e-01f, -8.651427925e-02f, -4.483081028e-02f,
         -2.134976350e-02f, -9.367712773e-03f, -3.795015858e-03f, -1.422021538e-03f, -4.935943289e-04f, -1.589176100e-04f,
         -4.751191227e-05f, -1.320351839e-05f, -3.413573722e-06f, -8.216616152e-07f, -1.842616797e-07f, -3.852101926e-08f,
         -7.511315125e-09f, -2.012774836e-09f},
        {-5.000321865e-01f, -5.033062696e-01f, -5.221573710e-01f, -5.427944064e-01f, -5.211083889e-01f, -4.126496315e-01f,
         -2.085589767e-01f, 5.131752789e-02f, 2.975470126e-01f, 4.668690562e-01f, 5.300927162e-01f, 4.973744452e-01f,
         4.045397639e-01f, 2.919319570e-01f, 1.894716322e-01f, 1.115768924e-01f, 5.998456478e-02f, 2.957327105e-02f,
         1.341681182e-02f, 5.616490263e-03f, 2.174162306e-03f, 7.796601276e-04f, 2.593881800e-04f, 8.016234642e-05f,
         2.303720066e-05f, 6.162076716e-06f, 1.535355182e-06f, 3.565969564e-07f, 7.725023465e-08f, 1.561748419e-08f,
         2.947956768e-09f, 7.714726635e-10f},
        {4.002324343e-01f, 4.210227728e-01f, 4.717713892e-01f, 5.063208938e-01f, 4.831231236e-01f, 3.877608776e-01f,
         2.396459877e-01f, 7.944531739e-02f, -5.244733766e-02f, -1.327094287e-01f, -1.597527713e-01f, -1.475133896e-01f,
         -1.152899489e-01f, -7.923194766e-02f, -4.881724715e-02f, -2.727449872e-02f, -1.392050274e-02f, -6.523624528e-03f,
         -2.817589324e-03f, -1.124725561e-03f, -4.158637312e-04f, -1.426771050e-04f, -4.548599463e-05f, -1.349073045e-05f,
         -3.726139312e-06f, -9.592123433e-07f, -2.303119402e-07f, -5.161023253e-08f, -1.079965006e-08f, -2.111280040e-09f,
         -3.857695829e-10f, -9.859352917e-11f},
        {-1.655215770e-02f, -6.311179698e-02f, -1.094955429e-01f, -1.288674772e-01f, -1.206081212e-01f, -9.260624647e-02f,
         -5.672733113e-02f, -2.377676591e-02f, -2.103975421e-04f, 1.247828919e-02f, 1.633507758e-02f, 1.480889879e-02f,
         1.107946597e-02f, 7.229759824e-03f, 4.219612107e-03f, 2.233258449e-03f, 1.080896938e-03f, 4.811003164e-04f,
         1.976955828e-04f, 7.521727093e-05f, 2.655492244e-05f, 8.714011528e-06f, 2.661495728e-06f, 7.574365100e-07f,
         2.010361584e-07f, 4.980117296e-08f, 1.152183593e-08f, 2.490916362e-09f, 5.034516692e-10f, 9.516922667e-11f,
         1.683185535e-11f, 4.201214897e-12f}};
    Vector a[N], stretch[N];
    UNROLL for (int i = 0; i < N; i++) a[i] = (Vector)_mm512_range_ps((__m512)x[i], _mm512_set1_ps(7.75f), 10);
    UNROLL for (int i = 0; i < N; i++) stretch[i] = a[i] + 2097152.0f;
    // NaN stays: of two operands of which one is NaN the processor gives the second.
    UNROLL for (int i = 0; i < N; i++)
      x[i] = at_stretch(bump[0], stretch[i]) + (Vector)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x[i]);
    UNROLL for (int i = 0; i < N; i++) {
      const Vector square = at_stretch(bump[2], stretch[i]) + a[i] * at_stretch(bump[3], stretch[i]);
      x[i] = x[i] + a[i] * (at_stretch(bump[1], stretch[i]) + a[i] * square);
    }
  }

 private:
  static INLINE Vector at_stretch(const float (&table)[32], Vector stretch) {
    return (Vector)_mm512_permutex2var_ps(_mm512_load_ps(table), (__m512i)stretch, _mm512_load_ps(table + 16));
  }
};

// Where a product's rows lie as bytes, and what each row's integers are multiples of.
struct ByteRows {
  explicit ByteRows(const Product *p) : at((char *)p->scratch + steps_bytes(p->m)), stride(stride_of(p->k)) {
    float *of = (float *)p->scratch;
    steps = of;
    if (p->again) return;
    for (int64_t r = 0; r < p->m; r++)
      of[r] = round_row((const float *)p->a + r * p->a_stride, p->k, at + r * stride);
  }
  // Tiles read 16 rows, whether they exist or not.
  static int64_t bytes(int64_t m, int64_t k) { return steps_bytes(m) + (m + BLOCK) * stride_of(k); }
  static int64_t steps_of(int64_t k) { return (k + STEP - 1) / STEP; }

  char *at;
  int64_t stride;  // an odd number of cache lines (see engine.cpp)
  const float *steps;

 private:
  static int64_t stride_of(int64_t k) { return steps_of(k) * 2 * STEP + 64; }

  static float round_row(const float *from, int64_t k, char *to) {
    Extent extent;
    const int64_t whole = k / STEP * STEP;
    alignas(64) float rest[STEP] = {};
    memcpy(rest, from + whole, (k - whole) * 4);
    for (int64_t i = 0; i < whole; i += LANES) extent.look(load(from + i));
    if (whole < k)
      for (int64_t i = 0; i < STEP; i += LANES) extent.look(load(rest + i));
    const float step = step_in_bytes(largest(extent.most), sum(extent.squares)), inverse = inverse_of(step);
    const auto put = [&](const float *x) __attribute__((always_inline)) {
      UNROLL for (int64_t i = 0; i < STEP; i += LANES, to += LANES) {
        const __m512i integer = _mm512_cvtps_epi32((__m512)(load(x + i) * inverse));
        const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(integer, _mm512_set1_epi32(128)), 8);
        _mm_store_si128((__m128i *)to, _mm512_cvtepi32_epi8(high));
        _mm_store_si128((__m128i *)(to + STEP), _mm512_cvtepi32_epi8(integer));
      }
      to += STEP;
    };
    for (int64_t i = 0; i < whole; i += STEP) put(from + i);
    if (whole < k) put(rest);
    return step;
  }
};

template <int epilogue, int activation> class BytesProduct {
 public:
  explicit BytesProduct(const Product *p)
      : p_(p), rows_(p), words_(ByteRows::steps_of(p->k) * STEP_WORDS), bytes_(target_bytes<Float32, epilogue>(p)),
        turns_(2 * words_ / STEP_WORDS), begin_(turns_ / 4),
        share_((BLOCK / 2 + turns_ - begin_ - 1) / (turns_ - begin_)) {}

  void run() {
    const int64_t blocks = (p_->m + BLOCK - 1) / BLOCK;
    for (int64_t column = 0; column < p_->n; column += COLUMNS) {
      const uint32_t *panel = p_->panels + column * words_;
      next_ = (const char *)(column + COLUMNS < p_->n ? panel + COLUMNS * words_ : p_->next);
      lines_ = next_ ? (words_ * VECTORS + blocks * turns_ - 1) / (blocks * turns_) : 0;
      for (int64_t row = 0; row < p_->m; row += BLOCK) {
        multiply(rows_.at + row * rows_.stride, panel);
        finish_rest();
        const int64_t rows = p_->m - row < BLOCK ? p_->m - row : BLOCK;
        char *const to = target<Float32, epilogue>(p_, row, column);
        waits_ = {sums_, rows_.steps + row, p_->steps + column, p_->bias + column, to, rows};
      }
    }
    store0();
    store1();
    store2();
    store3();
    finish_rest();
  }

 private:
  // The rows of a block that wait to be finished.
  struct Waiting {
    const int32_t *sums = nullptr;
    const float *of_rows = nullptr, *of_columns = nullptr, *bias = nullptr;
    char *target = nullptr;
    int64_t rows = 0;
  };

  INLINE void store0() { _tile_stored(0, sums_, 64); }
  INLINE void store1() { _tile_stored(1, sums_ + TILE, 64); }
  INLINE void store2() { _tile_stored(2, sums_ + 2 * TILE, 64); }
  INLINE void store3() { _tile_stored(3, sums_ + 3 * TILE, 64); }

  template <int R> INLINE void finish(Waiting &w) const {
    alignas(64) float floats[R * COLUMNS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VECTORS; v++) {
      const int32_t *high = w.sums + 2 * v * TILE + r * SIDE_BYTES, *low = high + TILE;
      const Vector x = (Vector)_mm512_cvtepi32_ps(_mm512_load_si512(high)) * 65536.0f +
                       (Vector)_mm512_cvtepi32_ps(_mm512_load_si512(low)) * 256.0f;
      store(floats + r * COLUMNS + v * LANES, x * (w.of_rows[r] * load(w.of_columns + v * LANES)));
    }
    finish_rows<Results, epilogue, activation, VECTORS, R>(p_->activation, floats, w.bias, w.target, bytes_);
    w.sums += R * SIDE_BYTES;
    w.of_rows += R;
    w.target += R * bytes_;
    w.rows -= R;
  }

  INLINE void finish_rest() {
    while (waits_.rows > 1) finish<2>(waits_);
    if (waits_.rows) finish<1>(waits_);
  }

  INLINE static void load_rows(const char *a, int64_t stride) {
    _tile_stream_loadd(4, a, stride);
    _tile_stream_loadd(5, a + STEP, stride);
  }
  INLINE static void load_columns(const uint32_t *at) {
    _tile_loadd(6, at, 64);
    _tile_loadd(7, at + TILE, 64);
  }

  void multiply(const char *a, const uint32_t *left) {
    settle(a);
    settle(left);
    const uint32_t *right = left + SIDE_BYTES * words_;
    const int64_t stride = rows_.stride;
    Waiting waits = waits_;
    const char *next = next_;
    const int64_t lines = lines_, share = share_;
    int64_t wait = begin_;
    const auto meanwhile = [&]() __attribute__((always_inline)) {
      for (int64_t line = 0; line < lines; line++, next += 64) _mm_prefetch(next, _MM_HINT_T1);
      if (--wait >= 0) return;
      for (int64_t pair = 0; pair < share && waits.rows > 1; pair++) finish<2>(waits);
    };
    load_rows(a, stride);
    load_columns(left);
    store0();
    _tile_zero(0);
    _tile_dpbssd(0, 4, 6);
    store1();
    _tile_zero(1);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(1, 5, 6);
    load_columns(right);
    store2();
    _tile_zero(2);
    _tile_dpbssd(2, 4, 6);
    store3();
    _tile_zero(3);
    _tile_dpbssd(3, 4, 7);
    _tile_dpbssd(3, 5, 6);
    for (int64_t w = STEP_WORDS; w < words_; w += STEP_WORDS) {
      a += 2 * STEP;
      left += STEP_WORDS * SIDE_BYTES;
      right += STEP_WORDS * SIDE_BYTES;
      load_rows(a, stride);
      load_columns(left);
      meanwhile();
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(1, 5, 6);
      load_columns(right);
      meanwhile();
      _tile_dpbssd(2, 4, 6);
      _tile_dpbssd(3, 4, 7);
      _tile_dpbssd(3, 5, 6);
    }
    waits_ = waits;
    next_ = next;
  }

  const Product *const p_;
  const ByteRows rows_;
  const int64_t words_, bytes_;
  const int64_t turns_, begin_, share_;  // as in tile_product.h
  int64_t lines_ = 0;
  const char *next_ = nullptr;
  alignas(64) int32_t sums_[4 * TILE];
  Waiting waits_;
};

void bytes_product(const Product *p) {
  if (p->epilogue == ADD) BytesProduct<ADD, -1>(p).run();
  else if (p->epilogue == GATE && p->activation == 0) BytesProduct<GATE, 0>(p).run();
  else if (p->epilogue == GATE) BytesProduct<GATE, ANY>(p).run();
  else if (p->activation == -1) BytesProduct<STORE, -1>(p).run();
  else if (p->activation == 0) BytesProduct<STORE, 0>(p).run();
  else BytesProduct<STORE, ANY>(p).run();
}

}  // namespace
