#include "pass.h"

#include <algorithm>
#include <cstring>

namespace {

// AMX loads 16 rows at a time: buffers have that many to spare.
constexpr int64_t SPARE = 32;

// Tokens whose embeddings are on their way.
constexpr int64_t AHEAD = 4;

void fetch(const float *row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(reinterpret_cast<const char *>(row) + i);
}

}  // namespace

Pass::Pass(Engine &engine, Workspace &workspace, const Sequences &sequences, const Unit *first, const Unit *last,
           int64_t parts, int64_t slots, int32_t output, float *result)
    : e_(engine),
      k_(engine.kernels_),
      ids_(sequences.ids),
      types_(sequences.types),
      offsets_(sequences.offsets),
      seen_(sequences.seen),
      first_unit_(first),
      last_unit_(last),
      whole_{first->first, (last - 1)->last},
      n_(whole_.last - whole_.first),
      parts_(parts),
      output_(output),
      result_(result),
      all_(engine.every_token(output)) {
  int64_t longest = 0, tokens = 0;  // of a sequence, of a unit
  for (int64_t i = whole_.first; i < whole_.last; i++) longest = std::max(longest, offsets_[i + 1] - offsets_[i]);
  for (const Unit *unit = first; unit < last; unit++)
    tokens = std::max(tokens, offsets_[unit->last] - offsets_[unit->first]);
  const int64_t element = k_.element, hidden = e_.hidden_;
  struct Planned {
    Rows *rows;
    int64_t at, count, width;
  };
  Planned planned[12];
  int64_t needed = 0, buffers = 0;
  const auto plan = [&](Rows &rows, int64_t count, int64_t width, int64_t size) {
    rows.stride = stride_of(width, size);
    rows.element = size;
    planned[buffers++] = {&rows, needed, count, width};
    needed += ((count + SPARE) * rows.stride * size + 63) / 64 * 64;
  };
  plan(x_, tokens, hidden, 4);
  plan(operands_, tokens, e_.project_.outputs ? std::max(hidden, e_.width_) : hidden, element);
  plan(queries_, tokens, hidden, element);
  plan(key_value_[0], tokens, 2 * hidden, element);
  // One part is alone: it has read a layer's keys and values before it writes the next's.
  if (parts > 1) plan(key_value_[1], tokens, 2 * hidden, element);
  // Pieces of one size: a short last one would read all weights for a few rows (5 % of the time of units of 512 tokens).
  const int64_t rows = (tokens + parts - 1) / parts + k_.grain;
  const int64_t pieces = std::max<int64_t>(1, (rows + k_.chunk / 2) / k_.chunk);
  chunk_ = ((rows + pieces - 1) / pieces + SPARE - 1) / SPARE * SPARE;
  // Of each slot the rows and those to spare.
  plan(inner_, slots * (chunk_ + SPARE), e_.slice_, element);
  plan(first_, n_, hidden, 4);
  plan(first_operands_, n_, hidden, element);
  plan(first_seen_, n_, hidden, element);
  plan(head_in_, n_, hidden, 4);
  plan(head_out_, n_, std::max(hidden, e_.labels_), 4);
  plan(small_, e_.project_.outputs ? tokens : 1, e_.width_, 4);
  const int64_t scratch = needed;
  // Rows of one product at most, and what it reads of each.
  const int64_t most = std::max(rows + SPARE, n_), inputs = std::max({hidden, e_.width_, e_.slice_});
  product_bytes_ = (k_.product_bytes(most, inputs) + 63) / 64 * 64;
  scratch_bytes_ = std::max((k_.attention_bytes(longest, e_.size_) + 63) / 64 * 64, 2 * product_bytes_);
  needed += slots * scratch_bytes_;
  if (workspace.memory.bytes < needed) {
    workspace.memory = Aligned();  // before the new one is taken
    // Not zeroed: another unit's numbers would be there as well, and what is never used takes no memory.
    workspace.memory = Aligned(needed, Aligned::ANYTHING);
  }
  for (int64_t b = 0; b < buffers; b++) {
    const Planned &p = planned[b];
    p.rows->at = workspace.memory.at + p.at;
    // Kernels read whole steps of the inputs against weights of zero, and zero times what an earlier unit left there may
    // be NaN. What is written past a width later on are zeros too.
    const auto past = static_cast<size_t>((p.rows->stride - p.width) * p.rows->element);
    for (int64_t i = 0; past && i < p.count; i++) std::memset(p.rows->row(i) + p.width * p.rows->element, 0, past);
  }
  if (parts == 1) key_value_[1] = key_value_[0];
  scratch_ = workspace.memory.at + scratch;
  turn(*first);
}

void Pass::turn(Unit unit) {
  unit_ = unit;
  begin_ = offsets_[unit.first];
  tokens_ = offsets_[unit.last] - begin_;
}

Pass::Part Pass::part(int64_t number, int64_t slot) const {
  // Whole steps of `grain` rows: tiles are loaded in 16 rows, and a product's never reach into another part. Those of
  // attention and of the [CLS] rows may, and nothing of such a row is kept.
  const int64_t steps = (tokens_ + k_.grain - 1) / k_.grain;
  const auto row = [&](int64_t i) { return std::min(tokens_, steps * i / parts_ * k_.grain); };
  const int64_t first = unit_.first - whole_.first, n = unit_.last - unit_.first;
  return {slot, row(number), row(number + 1), first + n * number / parts_, first + n * (number + 1) / parts_};
}

// The sequence that holds a row.
int64_t Pass::sequence_of(int64_t row) const {
  const int64_t *begin = offsets_ + whole_.first, *end = offsets_ + whole_.last;
  return std::upper_bound(begin, end, row + begin_) - begin - 1;
}

void Pass::product(const Kernels &kernels, const Packed &weights, const Rows &a, int64_t rows, int epilogue,
                   int activation, const Rows &out, const Part &part, const Packed *next, Integers integers) const {
  Product p{};
  p.a = a.at;
  p.a_stride = a.stride;
  p.panels = reinterpret_cast<const uint32_t *>(weights.panels.at);
  p.bias = reinterpret_cast<const float *>(weights.bias.at);
  p.m = rows;
  p.n = weights.gated ? 2 * weights.outputs : weights.outputs;
  p.k = weights.inputs;
  p.epilogue = epilogue;
  p.activation = activation;
  p.out = p.x = nullptr;
  p.steps = reinterpret_cast<const float *>(weights.steps.at);
  p.scratch = scratch_ + part.slot * scratch_bytes_ + (integers == BESIDE ? product_bytes_ : 0);
  p.again = integers == FOUND;
  if (next) p.next = next->panels.at;
  if (epilogue == ADD) {
    p.x = out.floats();
    p.x_stride = out.stride;
  } else {
    p.out = out.at;
    p.out_stride = out.stride;
  }
  kernels.product(&p);
}

void Pass::norm(const Norm &norm, const Rows &from, const Rows *floats, const Rows *operands, int64_t rows,
                int64_t width) const {
  NormRows p{};
  p.from = from.floats();
  p.from_stride = from.stride;
  if (floats) {
    p.floats = floats->floats();
    p.floats_stride = floats->stride;
  }
  if (operands) {
    p.operands = operands->at;
    p.operands_stride = operands->stride;
    p.operands_width = std::min(operands->stride, (width + 31) / 32 * 32);
  }
  p.weight = norm.weight.empty() ? nullptr : norm.weight.data();
  p.bias = norm.bias.empty() ? nullptr : norm.bias.data();
  p.rows = rows;
  p.width = width;
  p.eps = e_.eps_;
  k_.norm(&p);
}

void Pass::embed(const Part &p) {
  const bool projected = e_.project_.outputs != 0;
  const Rows &to = projected ? small_ : x_;
  const int64_t width = e_.width_;
  for (int64_t s = sequence_of(p.begin); s < n_ && start(s) < p.end; s++) {
    int64_t seen = 0;
    for (int64_t row = start(s); row < std::min(start(s + 1), p.end); row++) {
      const int64_t t = begin_ + row;
      int64_t place = row - start(s);
      if (e_.padding_ >= 0) place = ids_[t] == e_.padding_ ? e_.padding_ : ++seen + e_.padding_;
      // An earlier part's, walked over only for its count of tokens that are no padding.
      if (row < p.begin) continue;
      // A row of a table of 50 MB that nobody has read lately: fetched while four others are added up.
      if (row + AHEAD < p.end) fetch(e_.words_ + ids_[t + AHEAD] * width, width * 4);
      k_.add(to.floats(row), e_.words_ + ids_[t] * width, e_.positions_ ? e_.positions_ + place * width : nullptr,
             e_.kinds_ ? e_.kinds_ + types_[t] * width : nullptr, width);
    }
  }
  const Rows x = x_.from(p.begin), operands = operands_.from(p.begin);
  const int64_t rows = p.end - p.begin;
  if (!projected) {
    norm(e_.embedding_norm_, x, &x, &operands, rows, width);
    return;
  }
  norm(e_.embedding_norm_, small_.from(p.begin), nullptr, &operands, rows, width);
  for (int64_t t = 0; t < rows; t++) std::fill(x.floats(t), x.floats(t) + x.stride, 0.0f);
  product(k_, e_.project_, operands, rows, ADD, -1, x, p);
  norm(Norm(), x, nullptr, &operands, rows, e_.hidden_);
}

void Pass::rotate_row(const Layer &layer, const Rows &rows, int64_t row, int64_t place) const {
  const auto table = static_cast<size_t>(layer.rotary);
  const int64_t half = e_.size_ / 2;
  k_.rotate(rows.row(row), e_.heads_, e_.size_, e_.cosine_[table].data() + place * half,
            e_.sine_[table].data() + place * half);
}

void Pass::rotate(const Layer &layer, const Rows &rows, const Part &p) {
  if (layer.rotary < 0) return;
  for (int64_t s = sequence_of(p.begin); s < n_ && start(s) < p.end; s++)
    for (int64_t row = std::max(start(s), p.begin); row < std::min(start(s + 1), p.end); row++)
      rotate_row(layer, rows, row, row - start(s));
}

// Queries from position `first` on of one sequence, which lie in rows from `query_row` on.
void Pass::attend(size_t number, int64_t sequence, const Rows &queries, int64_t query_row, int64_t first,
                  int64_t queries_n, const Rows &out, const Part &part) {
  const Rows &key_value = key_value_[number % 2];
  Attention p{};
  p.query_stride = queries.stride;
  p.key_stride = p.value_stride = key_value.stride;
  p.queries_n = queries_n;
  p.n = seen_ ? seen_[whole_.first + sequence] : start(sequence + 1) - start(sequence);
  p.size = e_.size_;
  p.first = first;
  p.window = e_.layers_[number].window;
  p.out_stride = out.stride;
  p.scratch = scratch_ + part.slot * scratch_bytes_;
  for (int64_t head = 0; head < e_.heads_; head++) {
    const int64_t column = head * e_.size_ * k_.element;
    p.queries = queries.row(query_row) + column;
    p.keys = key_value.row(start(sequence)) + column;
    p.values = key_value.row(start(sequence)) + e_.hidden_ * k_.element + column;
    p.out = out.row(query_row) + column;
    k_.attend(&p);
  }
}

// Everything after attention. `operands` receives x as the inner layer's products read it.
void Pass::rest(const Layer &layer, const Rows &x, const Rows &operands, const Rows &seen, int64_t rows,
                const Part &p, const Packed *next) {
  product(k_, layer.out, seen, rows, ADD, -1, x, p, &layer.inner[0].up);
  const bool post = !layer.after_attention.weight.empty();
  norm(post ? layer.after_attention : layer.before_inner, x, post ? &x : nullptr, &operands, rows, e_.hidden_);
  const Rows inner = inner_.from(p.slot * (chunk_ + SPARE));
  for (int64_t row = 0; row < rows; row += chunk_) {
    const int64_t count = std::min(chunk_, rows - row);
    for (size_t i = 0; i < layer.inner.size(); i++) {
      const Slice &slice = layer.inner[i];
      const bool last = i + 1 == layer.inner.size();
      const Packed *later = !last ? &layer.inner[i + 1].up : row + chunk_ < rows ? &layer.inner[0].up : next;
      product(k_, slice.up, operands.from(row), count, e_.gated_ ? GATE : STORE, e_.activation_, inner, p, &slice.down,
              i ? FOUND : MADE);
      product(k_, slice.down, inner, count, ADD, -1, x.from(row), p, later, BESIDE);
    }
  }
}

void Pass::project(size_t number, const Part &p) {
  const Layer &layer = e_.layers_[number];
  const Rows operands = operands_.from(p.begin), &key_value = key_value_[number % 2];
  const int64_t rows = p.end - p.begin;
  if (!layer.before_attention.weight.empty())
    norm(layer.before_attention, x_.from(p.begin), nullptr, &operands, rows, e_.hidden_);
  product(k_, layer.query, operands, rows, STORE, -1, queries_.from(p.begin), p, &layer.key_value);
  product(k_, layer.key_value, operands, rows, STORE, -1, key_value.from(p.begin), p, &layer.out, FOUND);
  rotate(layer, queries_, p);
  rotate(layer, key_value, p);
}

void Pass::finish(size_t number, const Part &p) {
  const Layer &layer = e_.layers_[number];
  // The operands have been read: attention writes over them.
  for (int64_t s = sequence_of(p.begin); s < n_ && start(s) < p.end; s++) {
    const int64_t from = std::max(start(s), p.begin), to = std::min(start(s + 1), p.end);
    attend(number, s, queries_, from, from - start(s), to - from, operands_, p);
  }
  // `queries_` has been read as well: it takes the operands of the inner layer.
  const Rows x = x_.from(p.begin), operands = operands_.from(p.begin);
  const int64_t rows = p.end - p.begin;
  const Packed *next = nullptr;
  if (number + 1 < e_.layers_.size()) {
    const Layer &later = e_.layers_[number + 1];
    next = number + 2 == e_.layers_.size() && !all_ ? &later.key_value : &later.query;
  }
  rest(layer, x, queries_.from(p.begin), operands, rows, p, next);
  // Without a norm here the next layer begins with its own.
  if (!layer.after_inner.weight.empty()) norm(layer.after_inner, x, &x, &operands, rows, e_.hidden_);
}

void Pass::project_first(size_t number, const Part &p) {
  const Layer &layer = e_.layers_[number];
  const Rows operands = operands_.from(p.begin), &key_value = key_value_[number % 2];
  const int64_t rows = p.end - p.begin;
  if (!layer.before_attention.weight.empty())
    norm(layer.before_attention, x_.from(p.begin), nullptr, &operands, rows, e_.hidden_);
  product(k_, layer.key_value, operands, rows, STORE, -1, key_value.from(p.begin), p, &layer.query);
  rotate(layer, key_value, p);
}

void Pass::attend_first(size_t number, const Part &p) {
  const Layer &layer = e_.layers_[number];
  const int64_t n = p.last - p.first;
  if (!n) return;
  for (int64_t i = p.first; i < p.last; i++) {
    std::memcpy(first_.row(i), x_.row(start(i)), static_cast<size_t>(e_.hidden_) * 4);
    std::memcpy(first_operands_.row(i), operands_.row(start(i)), static_cast<size_t>(e_.hidden_ * k_.element));
  }
  // All rows of `queries_` are free in the last layer; those of first tokens begin it.
  const Rows queries = queries_.from(whole_.first + p.first - unit_.first), seen = first_seen_.from(p.first);
  product(k_, layer.query, first_operands_.from(p.first), n, STORE, -1, queries, p);
  for (int64_t i = 0; i < n; i++) {
    if (layer.rotary >= 0) rotate_row(layer, queries, i, 0);
    attend(number, p.first + i, queries, i, 0, 1, seen, p);
  }
}

void Pass::finish_first(const Part &p) {
  const Layer &layer = e_.layers_.back();
  const Rows first = first_.from(p.first);
  const int64_t n = p.last - p.first;
  rest(layer, first, first_operands_.from(p.first), first_seen_.from(p.first), n, p);
  if (!layer.after_inner.weight.empty()) norm(layer.after_inner, first, &first, nullptr, n, e_.hidden_);
  if (!e_.final_norm_.weight.empty()) norm(e_.final_norm_, first, &first, nullptr, n, e_.hidden_);
}

void Pass::mean(const Part &p) const {
  for (int64_t i = p.first; i < p.last; i++) {
    float *sum = first_.floats(i);
    std::fill(sum, sum + first_.stride, 0.0f);
    for (int64_t t = start(i); t < start(i + 1); t++) k_.add(sum, sum, x_.floats(t), nullptr, e_.hidden_);
    for (int64_t c = 0; c < e_.hidden_; c++) sum[c] /= static_cast<float>(start(i + 1) - start(i));
  }
}

void Pass::out_rows(const Rows &from, float *result, int64_t rows, int64_t width) const {
  for (int64_t i = 0; i < rows; i++)
    std::memcpy(result + i * width, from.row(i), static_cast<size_t>(width) * 4);
}

// The head reads `first_` and is float32 in every tier.
void Pass::head(const Part &p) {
  const Kernels &exact = e_.exact_;
  const int64_t n = p.last - p.first;
  const Rows in = head_in_.from(p.first), out = head_out_.from(p.first);
  product(exact, e_.head_dense_, first_.from(p.first), n, STORE, e_.head_activation_, in, p);
  if (!e_.head_norm_.weight.empty()) norm(e_.head_norm_, in, &in, nullptr, n, e_.hidden_);
  product(exact, e_.classifier_, in, n, STORE, -1, out, p);
  out_rows(out, result_ + (whole_.first + p.first) * e_.labels_, n, e_.labels_);
}

// What was asked for, of the sequences of a part.
void Pass::give(const Part &p) {
  const int64_t n = p.last - p.first;
  if (!n) return;
  if (output_ == CROSSRANK_STATES) {
    out_rows(x_.from(start(p.first)), result_ + (begin_ + start(p.first)) * e_.hidden_, start(p.last) - start(p.first),
             e_.hidden_);
    return;
  }
  if (all_) mean(p);
  else finish_first(p);
  if (output_ == CROSSRANK_LOGITS) head(p);
  else out_rows(first_.from(p.first), result_ + (whole_.first + p.first) * e_.hidden_, n, e_.hidden_);
}

int64_t Pass::steps() const { return static_cast<int64_t>(e_.layers_.size()) + 2; }

void Pass::run(int64_t step, int64_t number, int64_t slot) {
  const Part p = part(number, slot);
  const auto layers = static_cast<int64_t>(e_.layers_.size());
  const auto layer = static_cast<size_t>(step);
  if (step == layers + 1) {
    give(p);
    return;
  }
  if (step == layers && !all_) {
    attend_first(layer - 1, p);
    return;
  }
  if (p.begin == p.end) return;
  if (step == 0) embed(p);
  else finish(layer - 1, p);
  if (step < layers) {
    if (step + 1 == layers && !all_) project_first(layer, p);
    else project(layer, p);
  } else if (!e_.final_norm_.weight.empty()) {
    const Rows x = x_.from(p.begin);
    norm(e_.final_norm_, x, &x, nullptr, p.end - p.begin, e_.hidden_);
  }
}

void Pass::run() {
  const int64_t last = steps() - 1;
  for (const Unit *unit = first_unit_; unit < last_unit_; unit++) {
    turn(*unit);
    for (int64_t step = 0; step < last; step++) run(step, 0, 0);
  }
  turn(whole_);
  run(last, 0, 0);
}
