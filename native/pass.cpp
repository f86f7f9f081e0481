#include "pass.h"

#include <algorithm>
#include <cstring>

namespace {

// AMX loads 16 rows at a time: buffers have that many to spare.
constexpr int64_t SPARE = 32;

}  // namespace

Pass::Pass(Engine &engine, Workspace &workspace, const int32_t *ids, const int32_t *types, const int64_t *offsets,
           Unit unit)
    : e_(engine),
      k_(engine.kernels_),
      ids_(ids),
      types_(types),
      offsets_(offsets),
      unit_(unit),
      begin_(offsets[unit.first]),
      tokens_(offsets[unit.last] - offsets[unit.first]),
      n_(unit.last - unit.first) {
  int64_t longest = 0;
  for (int64_t i = unit.first; i < unit.last; i++) longest = std::max(longest, offsets[i + 1] - offsets[i]);
  const int64_t element = k_.element, hidden = e_.hidden_;
  struct Planned {
    Rows *rows;
    int64_t at, count, width;
  };
  Planned planned[11];
  int64_t needed = 0, buffers = 0;
  const auto plan = [&](Rows &rows, int64_t count, int64_t width, int64_t size) {
    rows.stride = stride_of(width, size);
    rows.element = size;
    planned[buffers++] = {&rows, needed, count, width};
    needed += ((count + SPARE) * rows.stride * size + 63) / 64 * 64;
  };
  plan(x_, tokens_, hidden, 4);
  plan(operands_, tokens_, e_.project_.outputs ? std::max(hidden, e_.width_) : hidden, element);
  plan(queries_, tokens_, hidden, element);
  plan(key_value_, tokens_, 2 * hidden, element);
  plan(inner_, std::min<int64_t>(tokens_, k_.chunk), e_.inner_, element);
  plan(first_, n_, hidden, 4);
  plan(first_operands_, n_, hidden, element);
  plan(first_seen_, n_, hidden, element);
  plan(head_in_, n_, hidden, 4);
  plan(head_out_, n_, std::max(hidden, e_.labels_), 4);
  plan(small_, e_.project_.outputs ? tokens_ : 1, e_.width_, 4);
  const int64_t scratch = needed;
  needed += k_.attention_bytes(longest, e_.size_);
  if (workspace.memory.bytes < needed) {
    workspace.memory = Aligned();  // before the new one is taken
    workspace.memory = Aligned(needed);
  }
  for (const Planned &p : planned) {
    p.rows->at = workspace.memory.at + p.at;
    // Kernels read whole steps of the inputs against weights of zero, and zero times what an earlier unit left there may
    // be NaN. What is written past a width later on are zeros too.
    const auto past = static_cast<size_t>((p.rows->stride - p.width) * p.rows->element);
    for (int64_t i = 0; past && i < p.count; i++) std::memset(p.rows->row(i) + p.width * p.rows->element, 0, past);
  }
  scratch_ = workspace.memory.at + scratch;
}

void Pass::product(const Kernels &kernels, const Packed &weights, const Rows &a, int64_t rows, int epilogue,
                   int activation, const Rows &out) const {
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

void Pass::embed() {
  const bool projected = e_.project_.outputs != 0;
  const Rows &to = projected ? small_ : x_;
  const int64_t width = e_.width_;
  for (int64_t s = unit_.first; s < unit_.last; s++) {
    int64_t seen = 0;
    for (int64_t t = offsets_[s]; t < offsets_[s + 1]; t++) {
      int64_t place = t - offsets_[s];
      if (e_.padding_ >= 0) place = ids_[t] == e_.padding_ ? e_.padding_ : ++seen + e_.padding_;
      float *row = to.floats(t - begin_);
      k_.add(row, e_.words_ + ids_[t] * width, e_.positions_ ? e_.positions_ + place * width : nullptr,
             e_.kinds_ ? e_.kinds_ + types_[t] * width : nullptr, width);
    }
  }
  if (!projected) {
    norm(e_.embedding_norm_, x_, &x_, &operands_, tokens_, width);
    return;
  }
  norm(e_.embedding_norm_, small_, nullptr, &operands_, tokens_, width);
  for (int64_t t = 0; t < tokens_; t++) std::fill(x_.floats(t), x_.floats(t) + x_.stride, 0.0f);
  product(k_, e_.project_, operands_, tokens_, ADD, -1, x_);
  norm(Norm(), x_, nullptr, &operands_, tokens_, e_.hidden_);
}

void Pass::rotate(const Layer &layer, const Rows &rows, int64_t column, bool first_only) {
  if (layer.rotary < 0) return;
  const auto table = static_cast<size_t>(layer.rotary);
  const int64_t half = e_.size_ / 2;
  for (int64_t s = unit_.first; s < unit_.last; s++) {
    const int64_t count = first_only ? 1 : offsets_[s + 1] - offsets_[s];
    for (int64_t t = 0; t < count; t++) {
      char *row = rows.row(first_only ? s - unit_.first : offsets_[s] - begin_ + t) + column * rows.element;
      k_.rotate(row, e_.heads_, e_.size_, e_.cosine_[table].data() + t * half, e_.sine_[table].data() + t * half);
    }
  }
}

void Pass::attend(const Layer &layer, int64_t sequence, const Rows &queries, int64_t query_row, int64_t queries_n,
                  const Rows &out) {
  const int64_t start = offsets_[sequence] - begin_;
  Attention p{};
  p.query_stride = queries.stride;
  p.key_stride = p.value_stride = key_value_.stride;
  p.queries_n = queries_n;
  p.n = offsets_[sequence + 1] - offsets_[sequence];
  p.size = e_.size_;
  p.first = 0;
  p.window = layer.window;
  p.out_stride = out.stride;
  p.scratch = scratch_;
  for (int64_t head = 0; head < e_.heads_; head++) {
    const int64_t column = head * e_.size_ * k_.element;
    p.queries = queries.row(query_row) + column;
    p.keys = key_value_.row(start) + column;
    p.values = key_value_.row(start) + e_.hidden_ * k_.element + column;
    p.out = out.row(query_row) + column;
    k_.attend(&p);
  }
}

// Everything after attention. `operands` receives x as the next layer's products read it.
void Pass::rest(const Layer &layer, const Rows &x, const Rows &operands, const Rows &seen, int64_t rows) {
  product(k_, layer.out, seen, rows, ADD, -1, x);
  const bool post = !layer.after_attention.weight.empty();
  norm(post ? layer.after_attention : layer.before_inner, x, post ? &x : nullptr, &operands, rows, e_.hidden_);
  for (int64_t row = 0; row < rows; row += k_.chunk) {
    const int64_t count = std::min<int64_t>(k_.chunk, rows - row);
    Rows from = operands, to = x;
    from.at = operands.row(row);
    to.at = x.row(row);
    product(k_, layer.up, from, count, e_.gated_ ? GATE : STORE, e_.activation_, inner_);
    product(k_, layer.down, inner_, count, ADD, -1, to);
  }
}

void Pass::layer(const Layer &layer) {
  if (!layer.before_attention.weight.empty())
    norm(layer.before_attention, x_, nullptr, &operands_, tokens_, e_.hidden_);
  product(k_, layer.query, operands_, tokens_, STORE, -1, queries_);
  product(k_, layer.key_value, operands_, tokens_, STORE, -1, key_value_);
  rotate(layer, queries_, 0, false);
  rotate(layer, key_value_, 0, false);
  // The operands have been read: attention writes over them.
  for (int64_t s = unit_.first; s < unit_.last; s++)
    attend(layer, s, queries_, offsets_[s] - begin_, offsets_[s + 1] - offsets_[s], operands_);
  // `queries_` has been read as well: it takes the operands of the inner layer.
  rest(layer, x_, queries_, operands_, tokens_);
  // Without a norm here the next layer begins with its own.
  if (!layer.after_inner.weight.empty()) norm(layer.after_inner, x_, &x_, &operands_, tokens_, e_.hidden_);
}

void Pass::last_layer(const Layer &layer) {
  if (!layer.before_attention.weight.empty())
    norm(layer.before_attention, x_, nullptr, &operands_, tokens_, e_.hidden_);
  for (int64_t i = 0; i < n_; i++) {
    const int64_t start = offsets_[unit_.first + i] - begin_;
    std::memcpy(first_.row(i), x_.row(start), static_cast<size_t>(e_.hidden_) * 4);
    std::memcpy(first_operands_.row(i), operands_.row(start), static_cast<size_t>(e_.hidden_ * k_.element));
  }
  product(k_, layer.query, first_operands_, n_, STORE, -1, queries_);
  product(k_, layer.key_value, operands_, tokens_, STORE, -1, key_value_);
  rotate(layer, queries_, 0, true);
  rotate(layer, key_value_, 0, false);
  for (int64_t i = 0; i < n_; i++) attend(layer, unit_.first + i, queries_, i, 1, first_seen_);
  rest(layer, first_, first_operands_, first_seen_, n_);
  if (!layer.after_inner.weight.empty())
    norm(layer.after_inner, first_, &first_, nullptr, n_, e_.hidden_);
}

void Pass::mean(const Rows &to) const {
  for (int64_t i = 0; i < n_; i++) {
    const int64_t start = offsets_[unit_.first + i] - begin_, count = offsets_[unit_.first + i + 1] - begin_ - start;
    float *sum = to.floats(i);
    std::fill(sum, sum + to.stride, 0.0f);
    for (int64_t t = start; t < start + count; t++) k_.add(sum, sum, x_.floats(t), nullptr, e_.hidden_);
    for (int64_t c = 0; c < e_.hidden_; c++) sum[c] /= static_cast<float>(count);
  }
}

void Pass::out_rows(const Rows &from, float *result, int64_t rows, int64_t width) const {
  for (int64_t i = 0; i < rows; i++)
    std::memcpy(result + i * width, from.row(i), static_cast<size_t>(width) * 4);
}

// The head reads `first_` and is float32 in every tier.
void Pass::head(float *result) {
  const Kernels &exact = e_.exact_;
  product(exact, e_.head_dense_, first_, n_, STORE, e_.head_activation_, head_in_);
  if (!e_.head_norm_.weight.empty()) norm(e_.head_norm_, head_in_, &head_in_, nullptr, n_, e_.hidden_);
  product(exact, e_.classifier_, head_in_, n_, STORE, -1, head_out_);
  out_rows(head_out_, result + unit_.first * e_.labels_, n_, e_.labels_);
}

void Pass::run(int32_t output, float *result) {
  embed();
  const bool all = output == CROSSRANK_MEAN || output == CROSSRANK_STATES ||
                   (output == CROSSRANK_LOGITS && e_.head_by_mean_);
  for (size_t i = 0; i < e_.layers_.size(); i++) {
    if (i + 1 == e_.layers_.size() && !all) last_layer(e_.layers_[i]);
    else layer(e_.layers_[i]);
  }
  if (!e_.final_norm_.weight.empty()) {
    const Rows &rows = all ? x_ : first_;
    norm(e_.final_norm_, rows, &rows, nullptr, all ? tokens_ : n_, e_.hidden_);
  }
  switch (output) {
    case CROSSRANK_STATES: out_rows(x_, result + begin_ * e_.hidden_, tokens_, e_.hidden_); break;
    case CROSSRANK_MEAN:
      mean(first_);
      out_rows(first_, result + unit_.first * e_.hidden_, n_, e_.hidden_);
      break;
    case CROSSRANK_FIRST: out_rows(first_, result + unit_.first * e_.hidden_, n_, e_.hidden_); break;
    default:
      if (all) mean(first_);
      head(result);
  }
}
