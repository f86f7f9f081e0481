// The C interface: checks what it is given, picks a tier, and lets no exception out.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "cpu.h"
#include "crossrank.h"
#include "engine.h"
#include "integers.h"
#include "threads.h"
#include "wordpiece.h"

namespace {

// A product of a tier on given numbers: for the check of the tiles and for the peak.
struct Trial {
  // `weights` (n, k) and `rows` (m, k) are read here and not kept. n and k are multiples of 32.
  Trial(const Kernels &kernels, const std::vector<float> &weights, const std::vector<float> &rows, int64_t m,
        int64_t n, int64_t k)
      : kernels(kernels),
        packed(pack({weights.data(), nullptr}, {0, n, k}, kernels)),
        a((m + 32) * k * kernels.element),
        scratch(kernels.product_bytes(m, k)) {
    NormRows copy{};
    copy.from = rows.data();
    copy.from_stride = copy.operands_stride = copy.operands_width = copy.width = k;
    copy.operands = a.at;
    copy.rows = m;
    kernels.norm(&copy);
    product.a = a.at;
    product.a_stride = k;
    product.panels = reinterpret_cast<const uint32_t *>(packed.panels.at);
    product.bias = reinterpret_cast<const float *>(packed.bias.at);
    product.steps = reinterpret_cast<const float *>(packed.steps.at);
    product.scratch = scratch.at;
    product.m = m;
    product.n = n;
    product.k = k;
    product.activation = -1;
    kernels.enter();
  }
  ~Trial() { kernels.leave(); }
  Trial(const Trial &) = delete;
  Trial &operator=(const Trial &) = delete;
  void run() const { kernels.product(&product); }

  const Kernels &kernels;
  const Packed packed;
  const Aligned a, scratch;
  Product product{};  // the caller says what becomes of the sums
};

#ifdef CROSSRANK_HAS_AMX
// One small product on tiles against the same on AVX-512: a machine whose tiles compute something else (a virtual machine
// that saves them badly, say) is treated as one that has none.
bool agrees(const Kernels &tiles, float within) {
  const int64_t m = 40, n = 64, k = 96;
  std::vector<float> weights(static_cast<size_t>(n * k)), rows(static_cast<size_t>(m * k));
  for (size_t i = 0; i < weights.size(); i++) weights[i] = static_cast<float>(static_cast<int>(i * 7 % 31) - 15);
  for (size_t i = 0; i < rows.size(); i++) rows[i] = static_cast<float>(static_cast<int>(i * 5 % 29) - 14);
  const auto sums = [&](const Kernels &kernels) {
    std::vector<float> x(static_cast<size_t>(m * n));
    Trial trial(kernels, weights, rows, m, n, k);
    trial.product.epilogue = ADD;
    trial.product.x = x.data();
    trial.product.x_stride = n;
    trial.run();
    return x;
  };
  const std::vector<float> found = sums(tiles), exact = sums(*kernels_avx512(CROSSRANK_FLOAT32));
  for (size_t i = 0; i < exact.size(); i++)
    if (!(std::fabs(found[i] - exact[i]) <= within)) return false;
  return true;
}

// Asked once of each.
bool tiles_agree() try {
  // Small whole numbers are exact.
  static const bool agree = agrees(*kernels_amx(CROSSRANK_BFLOAT16), 0);
  return agree;
} catch (const std::exception &) {
  return false;  // no memory to find out; the next call tries again
}
#ifdef CROSSRANK_HAS_AMXINT16
bool byte_tiles_agree() try {
  // A byte that is not counted, or counted twice, would be more.
  static const bool agree = agrees(*kernels_amxint16(CROSSRANK_INT16), 1);
  return agree;
} catch (const std::exception &) {
  return false;
}
#endif
#endif

// The functions of a tier and dtype, or NULL where this build or this processor has none.
const Kernels *kernels_of(int32_t tier, int32_t dtype) {
  switch (tier) {
    case CROSSRANK_PORTABLE: return kernels_portable(dtype);
#ifdef CROSSRANK_HAS_AVX2
    case CROSSRANK_AVX2:
      if (!cpu().avx2) return nullptr;
      if (dtype != CROSSRANK_INT16) return kernels_avx2(dtype);
#ifdef CROSSRANK_HAS_AVXVNNI
      if (cpu().avx_vnni) return kernels_avxvnni(dtype);
#endif
#ifdef CROSSRANK_HAS_AVX2INT16
      return kernels_avx2int16(dtype);
#else
      return nullptr;
#endif
#endif
#ifdef CROSSRANK_HAS_AVX512
    case CROSSRANK_AVX512:
#ifdef CROSSRANK_HAS_AVX512BF16
      if (dtype == CROSSRANK_BFLOAT16) return cpu().avx512_bf16 ? kernels_avx512bf16(dtype) : nullptr;
#endif
      return cpu().avx512 ? kernels_avx512(dtype) : nullptr;
#endif
#ifdef CROSSRANK_HAS_AMX
    case CROSSRANK_AMX:
      // Tiles have no float32: the tier's exact form is AVX-512.
      if (!cpu().amx_bf16 || !tiles_agree()) return nullptr;
#ifdef CROSSRANK_HAS_AMXINT16
      if (dtype == CROSSRANK_INT16) return cpu().amx_int8 && byte_tiles_agree() ? kernels_amxint16(dtype) : nullptr;
#endif
      return dtype == CROSSRANK_BFLOAT16 ? kernels_amx(dtype) : kernels_avx512(dtype);
#endif
    default: return nullptr;
  }
}

double peak(const Kernels &kernels, double seconds) {
  // The shape of a MiniLM's products, small enough for the second-level cache. Random numbers: zeros flatter by 25 %.
  const int64_t m = 96, n = 384, k = 384;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> numbers(-1.0f, 1.0f);
  std::vector<float> weights(static_cast<size_t>(n * k)), rows(static_cast<size_t>(m * k));
  for (float &x : weights) x = numbers(random);
  for (float &x : rows) x = numbers(random);
  Aligned out(m * n * kernels.element);
  Trial trial(kernels, weights, rows, m, n, k);
  trial.product.epilogue = STORE;
  trial.product.out = out.at;
  trial.product.out_stride = n;
  const auto begin = std::chrono::steady_clock::now();
  double best = 0, passed = 0;
  while (passed < seconds) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; i++) trial.run();
    const auto stop = std::chrono::steady_clock::now();
    const double took = std::chrono::duration<double>(stop - start).count();
    // The best of many: what the machine can do when nobody else uses the core.
    const double rate = 20.0 * 2.0 * static_cast<double>(m * n * k) / took / 1e9;
    best = rate > best ? rate : best;
    passed = std::chrono::duration<double>(stop - begin).count();
  }
  return best;
}

const char *fault(const crossrank_model &m, int32_t dtype, Packing packing) {
  if (m.hidden < 1 || m.heads < 1 || m.inner < 1 || m.layers < 1 || m.width < 1 || m.hidden % m.heads)
    return "a size of the model is not positive, or hidden does not divide by heads";
  if (dtype == CROSSRANK_BFLOAT16 && (m.hidden / m.heads) % 2)
    return "bfloat16 reads numbers in pairs, and this model's head size is odd; use float32";
  if (packing == BYTES && std::max(m.hidden, m.width) > MOST_BYTES)
    return "int16 with AMX adds up at most 65,536 products, and this model's rows are longer; use float32";
  if (!m.words || !m.layer) return "the model has no embeddings or no layers";
  for (int32_t i = 0; i < m.layers; i++) {
    const crossrank_layer &l = m.layer[i];
    if (!l.qkv.weight || !l.out.weight || !l.up.weight || !l.down.weight) return "a layer has no weights";
    if (l.rotary > 1 || (l.rotary >= 0 && !m.frequencies[l.rotary])) return "a layer's rotary table is missing";
    if (l.rotary >= 0 && (m.hidden / m.heads) % 2) return "rotary positions need an even head size";
  }
  if (m.labels > 0 && (!m.head_dense.weight || !m.classifier.weight)) return "the head has no weights";
  return nullptr;
}

}  // namespace

struct crossrank_engine {
  crossrank_engine(const crossrank_model &model, const Kernels &kernels, const Kernels &exact)
      : engine(model, kernels, exact) {}
  Engine engine;
};

int32_t crossrank_abi(void) { return CROSSRANK_ABI; }

const char *crossrank_compiler(void) {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

uint32_t crossrank_tiers(void) {
  uint32_t found = 0;
  for (int32_t tier = 0; tier <= CROSSRANK_AMX; tier++)
    if (kernels_of(tier, CROSSRANK_FLOAT32)) found |= 1u << tier;
  return found;
}

int32_t crossrank_computes(int32_t tier, int32_t dtype) {
  if (!kernels_of(tier, dtype)) return 0;
  if (dtype == CROSSRANK_INT16) return tier == CROSSRANK_AMX || cpu().fast_integers ? 2 : 1;
  return dtype == CROSSRANK_BFLOAT16 && (tier == CROSSRANK_AMX || cpu().fast_pairs) ? 2 : 1;
}

crossrank_engine *crossrank_create(const crossrank_model *model, int32_t tier, int32_t dtype, char *error,
                                   int64_t error_size) {
  const char *reason = nullptr;
  try {
    const Kernels *kernels = kernels_of(tier, dtype), *exact = kernels_of(tier, CROSSRANK_FLOAT32);
    reason = !kernels || !exact ? "this machine or build has no such tier and dtype" : fault(*model, dtype, kernels->packing);
    if (!reason) return new crossrank_engine(*model, *kernels, *exact);
  } catch (const std::exception &) {
    reason = "not enough memory for the packed weights";
  }
  if (error && error_size > 0) std::snprintf(error, static_cast<size_t>(error_size), "%s", reason);
  return nullptr;
}

void crossrank_destroy(crossrank_engine *engine) { delete engine; }

int64_t crossrank_bytes(const crossrank_engine *engine) { return engine->engine.bytes(); }

int32_t crossrank_forward(crossrank_engine *engine, const int32_t *ids, const int32_t *types, const int64_t *offsets,
                          const int64_t *seen, int64_t n, int32_t output, int32_t threads, float *result) {
  try {
    const Sequences sequences{ids, types, offsets, seen, n};
    if (!engine->engine.holds(sequences)) return -2;
    return engine->engine.forward(sequences, output, threads, result) ? 0 : -1;
  } catch (const std::exception &) {
    return -1;
  }
}

int32_t crossrank_maxsim(int32_t tier, const float *query, int64_t tokens, int64_t width, const void *vectors,
                         int32_t half, const int64_t *offsets, int64_t n, int32_t threads, float *scores) {
  const Kernels *kernels = kernels_of(tier, CROSSRANK_FLOAT32);
  if (!kernels) return -1;
  // Documents of one ticket: enough that taking it costs nothing beside them.
  constexpr int64_t TICKET = 16;
  try {
    const Packed packed = pack({query, nullptr}, {0, tokens, width}, *kernels);
    const auto *panels = reinterpret_cast<const uint32_t *>(packed.panels.at);
    std::atomic<bool> short_of_memory{false};
    const bool done = run_parallel((n + TICKET - 1) / TICKET, threads, [&](int64_t ticket) {
      const int64_t begin = ticket * TICKET, end = std::min(n, begin + TICKET);
      std::unique_ptr<float[]> wide;
      if (half) {
        // A document at a time, so that it is still in the cache when it is compared.
        int64_t longest = 0;
        for (int64_t i = begin; i < end; i++) longest = std::max(longest, offsets[i + 1] - offsets[i]);
        wide.reset(new (std::nothrow) float[static_cast<size_t>(longest * width)]);
        if (!wide) return short_of_memory.store(true);
      }
      for (int64_t i = begin; i < end; i++) {
        const int64_t count = offsets[i + 1] - offsets[i];
        const float *read = half ? wide.get() : static_cast<const float *>(vectors) + offsets[i] * width;
        if (half) kernels->widen(static_cast<const uint16_t *>(vectors) + offsets[i] * width, wide.get(), count * width);
        const MaxSim document{panels, tokens, width, read, count};
        scores[i] = count ? kernels->maxsim(&document) : -std::numeric_limits<float>::infinity();
      }
    });
    return done && !short_of_memory ? 0 : -1;
  } catch (const std::exception &) {
    return -1;
  }
}

double crossrank_peak(int32_t tier, int32_t dtype, double seconds) {
  const Kernels *kernels = kernels_of(tier, dtype);
  if (!kernels) return 0;
  try {
    return peak(*kernels, seconds);
  } catch (const std::exception &) {
    return 0;
  }
}

struct crossrank_characters {
  Characters characters;
};

crossrank_characters *crossrank_characters_create(void) { return new (std::nothrow) crossrank_characters; }

void crossrank_characters_destroy(crossrank_characters *characters) { delete characters; }

int32_t crossrank_characters_tell(crossrank_characters *characters, const crossrank_strings *letters,
                                  const int32_t *codes, const uint8_t *kinds) {
  try {
    for (int64_t i = 0; i < letters->n; i++)
      characters->characters.tell(codes[i], kinds[i], at(*letters, i), size(*letters, i));
    return 0;
  } catch (const std::exception &) {
    return -1;
  }
}

struct crossrank_wordpiece {
  WordPiece wordpiece;
};

crossrank_wordpiece *crossrank_wordpiece_create(const crossrank_strings *pieces, const int32_t *ids,
                                                const crossrank_strings *prefix, int32_t unknown, int32_t most) {
  if (most < 1 || most > WordPiece::MOST) return nullptr;
  try {
    std::unique_ptr<crossrank_wordpiece> made(new crossrank_wordpiece{{*pieces, ids, *prefix, unknown, most}});
    return made->wordpiece.whole() ? made.release() : nullptr;
  } catch (const std::exception &) {
    return nullptr;
  }
}

void crossrank_wordpiece_destroy(crossrank_wordpiece *wordpiece) { delete wordpiece; }

int64_t crossrank_wordpiece_encode(const crossrank_wordpiece *wordpiece, const crossrank_characters *characters,
                                   const crossrank_strings *texts, int32_t threads, int32_t *ids, int32_t *spans,
                                   int64_t *counts) {
  // Parts of one thread: some, so that a thread with long texts does not keep the others waiting.
  constexpr int64_t PARTS = 4;
  const int64_t n = texts->n, parts = threads > 1 && n > 1 ? std::min<int64_t>(n, threads * PARTS) : 1;
  try {
    std::vector<int64_t> made(static_cast<size_t>(parts));
    // A part writes where its texts begin: there are no more ids than bytes.
    const bool done = run_parallel(parts, threads, [&](int64_t part) {
      int64_t &total = made[static_cast<size_t>(part)];
      const int64_t begin = n * part / parts, end = n * (part + 1) / parts;
      for (int64_t i = begin; i < end; i++) {
        const int64_t to = texts->offsets[begin] + total;
        counts[i] = wordpiece->wordpiece.encode(characters->characters, at(*texts, i), size(*texts, i), ids + to,
                                                spans ? spans + 2 * to : nullptr);
        total += std::max<int64_t>(counts[i], 0);
      }
    });
    if (!done) return -1;
    int64_t total = made[0];
    for (int64_t part = 1; part < parts; part++) {
      const int64_t count = made[static_cast<size_t>(part)], from = texts->offsets[n * part / parts];
      std::memmove(ids + total, ids + from, static_cast<size_t>(count) * sizeof *ids);
      if (spans) std::memmove(spans + 2 * total, spans + 2 * from, static_cast<size_t>(2 * count) * sizeof *spans);
      total += count;
    }
    return total;
  } catch (const std::exception &) {
    return -1;
  }
}
