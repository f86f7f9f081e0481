#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pass.h"
#include "threads.h"

namespace {

// Widths are rounded up to whole panels.
constexpr int64_t ROUND = 32;
constexpr int64_t LINE_BYTES = 64;

// A request of up to so many units a thread may be divided by rows; it is when the busiest thread would have that much
// more than its share. A part of fewer rows would read all weights for too little.
constexpr int64_t TEAM_UNITS = 16;
constexpr double UNEVEN = 1.15;
constexpr int64_t LEAST_ROWS = 6;

// Units that one thread computes one after the other, and the last layer's first tokens of all of them together: its
// weights are read a sixteenth as often. More gain nothing that could be measured.
constexpr int64_t GROUP = 16;

// Bytes of a workspace that waits for the next request. What needs more computes for seconds, and to the pages of new
// memory goes a hundredth of that; kept, one long document would hold its memory as long as the model lives.
constexpr int64_t KEPT = 64 << 20;

// Which of the `count` sets of a part's own buffers are free. At most `count` threads ask at once: there always is one.
class Slots {
 public:
  explicit Slots(int64_t count) : taken_(static_cast<size_t>(count)) {}
  int64_t take(int64_t first) {
    for (size_t i = static_cast<size_t>(first) % taken_.size();; i = (i + 1) % taken_.size())
      if (!taken_[i].exchange(true, std::memory_order_acquire)) return static_cast<int64_t>(i);
  }
  void give(int64_t slot) { taken_[static_cast<size_t>(slot)].store(false, std::memory_order_release); }

 private:
  std::vector<std::atomic<bool>> taken_;
};

// Where groups of `count` units begin, and `count`. Each is of half a thread's share of what is left: the last ones are
// small, so that threads end at about the same time.
std::vector<size_t> groups(size_t count, int64_t most, int threads) {
  const size_t shares = threads > 1 ? 2 * static_cast<size_t>(threads) : 1;
  std::vector<size_t> borders{0};
  while (borders.back() < count) {
    const size_t share = (count - borders.back()) / shares;
    borders.push_back(borders.back() + std::min(std::max<size_t>(share, 1), static_cast<size_t>(most)));
  }
  return borders;
}

}  // namespace

// Rows begin an odd number of cache lines apart, so that those of a block are spread over all sets of the first-level
// cache. 384 bfloat16 are 12 lines, and 32 such rows lie in 16 of the 64 sets, where they push out the weights: AMX's
// products took a fifth longer.
int64_t stride_of(int64_t width, int64_t element) {
  const int64_t line = LINE_BYTES / element, numbers = (width + ROUND - 1) / ROUND * ROUND;
  return numbers / line % 2 ? numbers : numbers + line;
}

Engine::Engine(const crossrank_model &m, const Kernels &kernels, const Kernels &exact)
    : kernels_(kernels),
      exact_(exact),
      hidden_(m.hidden),
      heads_(m.heads),
      size_(m.hidden / m.heads),
      inner_(m.inner),
      slice_(std::min<int64_t>(kernels.slice, m.inner)),
      labels_(m.labels),
      width_(m.width),
      vocabulary_(m.vocabulary),
      rows_of_types_(m.kinds),
      places_(m.positions),
      padding_(m.padding),
      eps_(m.eps),
      activation_(m.activation),
      gated_(m.gated != 0),
      words_(m.words),
      positions_(m.places),
      kinds_(m.types),
      embedding_norm_(m.embedding_norm, m.width),
      final_norm_(m.final_norm, m.hidden),
      head_norm_(m.head_norm, m.hidden),
      head_activation_(m.head_activation),
      head_by_mean_(m.head_by_mean != 0) {
  for (auto &slot : spare_) slot.store(nullptr);
  if (m.project.weight) project_ = pack(m.project, {0, hidden_, width_}, kernels_);
  if (labels_ > 0) {
    // The head is a 500th of the work and decides the score: it is float32 in every tier.
    head_dense_ = pack(m.head_dense, {0, hidden_, hidden_}, exact_);
    classifier_ = pack(m.classifier, {0, labels_, hidden_}, exact_);
  }
  layers_.reserve(static_cast<size_t>(m.layers));
  for (int32_t i = 0; i < m.layers; i++) {
    const crossrank_layer &from = m.layer[i];
    Layer layer;
    layer.before_attention = Norm(from.before_attention, hidden_);
    layer.after_attention = Norm(from.after_attention, hidden_);
    layer.before_inner = Norm(from.before_inner, hidden_);
    layer.after_inner = Norm(from.after_inner, hidden_);
    // Apart, because the last layer needs the queries of first tokens only.
    layer.query = pack(from.qkv, {0, hidden_, hidden_}, kernels_);
    layer.key_value = pack(from.qkv, {hidden_, 2 * hidden_, hidden_}, kernels_);
    layer.out = pack(from.out, {0, hidden_, hidden_}, kernels_);
    for (int64_t unit = 0; unit < inner_; unit += slice_) {
      const int64_t units = std::min(slice_, inner_ - unit);
      Piece up{unit, units, hidden_}, down{0, hidden_, units};
      if (gated_) up.gates = inner_ + unit;
      down.first_input = unit;
      down.row = inner_;
      // What is added to the sum of all slices is added with the first of them.
      const crossrank_linear later{from.down.weight, nullptr};
      layer.inner.push_back({pack(from.up, up, kernels_), pack(unit ? later : from.down, down, kernels_)});
    }
    layer.window = from.window;
    layer.rotary = from.rotary;
    layers_.push_back(std::move(layer));
  }
  for (size_t table = 0; table < 2; table++) {
    if (!m.frequencies[table]) continue;
    const int64_t half = size_ / 2;
    cosine_[table].resize(static_cast<size_t>(places_ * half));
    sine_[table].resize(static_cast<size_t>(places_ * half));
    for (int64_t place = 0; place < places_; place++)
      for (int64_t i = 0; i < half; i++) {
        const float angle = static_cast<float>(place) * m.frequencies[table][i];
        cosine_[table][static_cast<size_t>(place * half + i)] = std::cos(angle);
        sine_[table][static_cast<size_t>(place * half + i)] = std::sin(angle);
      }
  }
}

Engine::~Engine() {
  for (auto &slot : spare_) delete slot.load();
}

int64_t Engine::bytes() const {
  int64_t total = project_.bytes() + head_dense_.bytes() + classifier_.bytes();
  for (const Layer &l : layers_) {
    total += l.query.bytes() + l.key_value.bytes() + l.out.bytes();
    for (const Slice &slice : l.inner) total += slice.up.bytes() + slice.down.bytes();
  }
  return total;
}

// About `unit` tokens each, in the given order; smaller where a request is so small that threads would be idle.
std::vector<Unit> Engine::units(const int64_t *offsets, int64_t n, int threads) const {
  const int64_t total = offsets[n] - offsets[0];
  // Two units a thread even out what units differ in; under 48 tokens a unit streams weights for too few rows.
  const int64_t fair = total / (2 * std::max(threads, 1));
  const int64_t aim = std::max<int64_t>(threads > 1 ? 48 : kernels_.unit, std::min<int64_t>(kernels_.unit, fair));
  std::vector<Unit> found;
  int64_t first = 0;
  for (int64_t i = 0; i < n; i++) {
    // A sequence that would take the unit further beyond its aim than it is short of it begins the next one.
    const int64_t held = offsets[i] - offsets[first], with = offsets[i + 1] - offsets[first];
    if (i > first && with > aim && with - aim > aim - held) {
      found.push_back({first, i});
      first = i;
    }
  }
  if (first < n) found.push_back({first, n});
  return found;
}

bool Engine::every_token(int32_t output) const {
  return output == CROSSRANK_MEAN || output == CROSSRANK_STATES || (output == CROSSRANK_LOGITS && head_by_mean_);
}

bool Engine::holds(const Sequences &s) const {
  const int64_t longest = padding_ >= 0 ? places_ - padding_ - 1 : places_;
  for (int64_t i = 0; i < s.n; i++) {
    const int64_t length = s.offsets[i + 1] - s.offsets[i];
    if (length < 1 || length > longest) return false;
  }
  for (int64_t t = s.offsets[0]; t < s.offsets[s.n]; t++)
    if (s.ids[t] < 0 || s.ids[t] >= vocabulary_ || (kinds_ && (s.types[t] < 0 || s.types[t] >= rows_of_types_)))
      return false;
  return true;
}

Workspace *Engine::take() {
  for (auto &slot : spare_)
    if (slot.load(std::memory_order_relaxed))
      if (Workspace *found = slot.exchange(nullptr)) return found;
  return new Workspace;
}

void Engine::give(Workspace *workspace) {
  if (workspace->memory.bytes > KEPT) workspace->memory = Aligned();
  for (auto &slot : spare_) {
    Workspace *empty = nullptr;
    if (slot.compare_exchange_strong(empty, workspace)) return;
  }
  delete workspace;
}

// Whether whole sequences would leave a thread idle for long: one long sequence, or a pair more than there are threads.
bool Engine::uneven(const std::vector<Unit> &work, const int64_t *offsets, int64_t n, int threads) const {
  const int64_t total = offsets[n] - offsets[0];
  // Above that a unit more or less does not matter, and the buffers of all tokens would leave the cache.
  if (threads < 2 || total > TEAM_UNITS * kernels_.unit * threads) return false;
  std::vector<int64_t> busy(static_cast<size_t>(threads), 0);
  for (const Unit &unit : work) *std::min_element(busy.begin(), busy.end()) += offsets[unit.last] - offsets[unit.first];
  return static_cast<double>(*std::max_element(busy.begin(), busy.end()) * threads) > UNEVEN * static_cast<double>(total);
}

// All sequences as one unit whose rows the threads divide, with a wait after every layer.
bool Engine::together(const Sequences &sequences, int32_t output, int32_t threads, float *result) {
  const int64_t total = sequences.offsets[sequences.n] - sequences.offsets[0];
  const int64_t rounds = (total + threads * kernels_.unit - 1) / (threads * kernels_.unit);
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(rounds * threads, total / LEAST_ROWS));
  std::unique_ptr<Workspace> workspace(take());
  // Threads and not parts decide how many buffers there are: of three documents of 8,192 tokens on 16 threads, 192 parts
  // would take 880 MB for their keys and values, and 16 threads take 74.
  const int64_t slots = std::min<int64_t>(threads, parts);
  Slots free(slots);
  const Unit all{0, sequences.n};
  Pass pass(*this, *workspace, sequences, &all, &all + 1, parts, slots, output, result);
  // Tickets are taken in order, so whoever waits waits for parts that others already compute: no deadlock, also when
  // only one thread ever comes.
  std::atomic<int64_t> done{0};
  const bool whole = run_parallel(pass.steps() * parts, threads, [&](int64_t ticket) {
    wait_until(done, ticket / parts * parts);
    const int64_t slot = free.take(ticket);
    kernels_.enter();
    pass.run(ticket / parts, ticket % parts, slot);
    kernels_.leave();
    free.give(slot);
    done.fetch_add(1, std::memory_order_release);
  });
  give(workspace.release());
  return whole;
}

bool Engine::forward(const Sequences &sequences, int32_t output, int32_t threads, float *result) {
  const std::vector<Unit> work = units(sequences.offsets, sequences.n, threads);
  if (uneven(work, sequences.offsets, sequences.n, threads)) return together(sequences, output, threads, result);
  const std::vector<size_t> borders = groups(work.size(), every_token(output) ? 1 : GROUP, threads);
  return run_parallel(static_cast<int64_t>(borders.size()) - 1, threads, [&](int64_t i) {
    std::unique_ptr<Workspace> workspace(take());
    const size_t *border = &borders[static_cast<size_t>(i)];
    Pass pass(*this, *workspace, sequences, &work[border[0]], &work[0] + border[1], 1, 1, output, result);
    kernels_.enter();
    pass.run();
    kernels_.leave();
    give(workspace.release());
  });
}
