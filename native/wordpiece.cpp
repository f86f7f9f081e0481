#include "wordpiece.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

namespace {

int64_t characters_of(const uint8_t *bytes, int64_t size) {
  return std::count_if(bytes, bytes + size, [](uint8_t byte) { return (byte & 0xc0) != 0x80; });
}

}  // namespace

Pieces::Pieces(int64_t most) {
  size_t size = 16;
  while (size < 2 * static_cast<size_t>(most)) size *= 2;
  slots.assign(size, {0, -1, 0, 0});
}

bool Pieces::add(const uint8_t *bytes, int64_t size, int32_t id) {
  if (pool.size() + static_cast<size_t>(size) > std::numeric_limits<uint32_t>::max()) return false;
  uint32_t hash = SEED;
  for (int64_t i = 0; i < size; i++) hash = step(hash, bytes[i]);
  size_t at = place(hash);
  for (int steps = 0; slots[at].id >= 0; at = (at + 1) & (slots.size() - 1))
    if (++steps > MOST_STEPS) return false;
  slots[at] = {hash, id, static_cast<uint32_t>(pool.size()), static_cast<uint32_t>(size)};
  pool.insert(pool.end(), bytes, bytes + size);
  longest_ = std::max(longest_, size);
  return true;
}

bool Pieces::scattered() const {
  int row = 0;
  for (size_t i = 0; i < slots.size() + MOST_STEPS; i++) {  // A row may go on at the first place.
    row = slots[i & (slots.size() - 1)].id < 0 ? 0 : row + 1;
    if (row > MOST_STEPS) return false;
  }
  return true;
}

int32_t Pieces::find(const uint8_t *bytes, int64_t size, uint32_t hash) const {
  for (size_t at = place(hash);; at = (at + 1) & (slots.size() - 1)) {
    const Slot &slot = slots[at];
    if (slot.id < 0) return -1;
    if (slot.hash == hash && slot.size == size && !std::memcmp(pool.data() + slot.at, bytes, slot.size)) return slot.id;
  }
}

Characters::~Characters() {
  for (std::atomic<Character *> &page : pages) delete[] page.load(std::memory_order_relaxed);
}

void Characters::tell(int32_t code, uint8_t kind, const uint8_t *letters, int64_t size) {
  const int64_t bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  // A text has no more ids than bytes: what becomes longer is left to the library.
  if (code < 0 || code >= END || kind < CROSSRANK_NOTHING || kind > CROSSRANK_ALONE ||
      size > static_cast<int64_t>(sizeof(Character::letters)) || characters_of(letters, size) > bytes)
    return;
  std::atomic<Character *> &place = pages[code / PAGE];
  Character *page = place.load(std::memory_order_acquire);
  if (!page) {
    std::unique_ptr<Character[]> made(new Character[PAGE]());
    if (place.compare_exchange_strong(page, made.get(), std::memory_order_acq_rel)) page = made.release();
  }
  Character &character = page[code % PAGE];
  uint8_t before = CROSSRANK_UNKNOWN;
  if (!character.kind.compare_exchange_strong(before, BEING_TOLD, std::memory_order_relaxed)) return;
  character.size = static_cast<uint8_t>(size);
  std::copy(letters, letters + size, character.letters);
  character.kind.store(kind, std::memory_order_release);
}

const Characters::Character *Characters::next(const uint8_t *&text, const uint8_t *end) const {
  int32_t code = *text;
  const int64_t bytes = code < 0x80 ? 1 : code < 0xc0 ? 0 : code < 0xe0 ? 2 : code < 0xf0 ? 3 : code < 0xf8 ? 4 : 0;
  if (!bytes || bytes > end - text) return nullptr;
  if (bytes > 1) code &= 0x7f >> bytes;
  for (int64_t i = 1; i < bytes; i++) code = code << 6 | (text[i] & 0x3f);
  if (code >= END) return nullptr;
  text += bytes;
  const Character *page = pages[code / PAGE].load(std::memory_order_acquire);
  return page ? page + code % PAGE : nullptr;
}

WordPiece::WordPiece(const crossrank_strings &pieces, const int32_t *ids, const crossrank_strings &prefix,
                     int32_t unknown, int64_t most)
    : starts(pieces.n), inside(pieces.n), unknown(unknown), most(most) {
  const int64_t before = size(prefix, 0);
  for (int64_t i = 0; i < pieces.n && whole_; i++) {
    const uint8_t *piece = at(pieces, i);
    const int64_t bytes = size(pieces, i);
    const bool within = bytes >= before && !std::memcmp(piece, at(prefix, 0), static_cast<size_t>(before));
    whole_ = starts.add(piece, bytes, ids[i]) && (!within || inside.add(piece + before, bytes - before, ids[i]));
  }
  whole_ = whole_ && starts.scattered() && inside.scattered();
}

int64_t WordPiece::encode(const Characters &characters, const uint8_t *text, int64_t size, int32_t *ids,
                          int32_t *spans) const {
  const uint8_t *const end = text + size;
  int64_t made = 0;
  Word word;
  const auto finish = [&] {
    if (!word.size) return;
    made += cut(word, ids + made, spans ? spans + 2 * made : nullptr);
    word.size = 0;
    word.hash = Pieces::SEED;
    word.longer = false;
  };
  for (int32_t place = 0; text < end; place++) {
    const Characters::Character *character = characters.next(text, end);
    const uint8_t kind = character ? character->kind.load(std::memory_order_acquire) : uint8_t{CROSSRANK_UNKNOWN};
    switch (kind) {
      case CROSSRANK_NOTHING: break;
      case CROSSRANK_SPACE: finish(); break;
      case CROSSRANK_LETTERS: grow(word, *character, place); break;
      case CROSSRANK_ALONE:
        finish();
        grow(word, *character, place);
        finish();
        break;
      default: return -1;
    }
  }
  finish();
  return made;
}

void WordPiece::grow(Word &word, const Characters::Character &character, int32_t place) const {
  word.last = place;
  if (word.size > 4 * most) {  // No character has more than four bytes.
    word.longer = true;
    return;
  }
  for (int i = 0; i < character.size; i++) {
    word.places[word.size] = place;
    word.bytes[word.size++] = character.letters[i];
    word.hash = Pieces::step(word.hash, character.letters[i]);
  }
}

// The longest piece that a word begins with, and so on with the rest; a word with a rest that no piece begins is unknown.
int64_t WordPiece::cut(const Word &word, int32_t *ids, int32_t *spans) const {
  const auto whole = [&](int32_t id) {
    ids[0] = id;
    if (spans) {
      spans[0] = word.places[0];
      spans[1] = word.last + 1;
    }
    return 1;
  };
  if (word.longer || (word.size > most && characters_of(word.bytes, word.size) > most)) return whole(unknown);
  const int32_t known = starts.find(word.bytes, word.size, word.hash);
  if (known >= 0) return whole(known);
  int64_t made = 0;
  uint32_t hashes[sizeof(word.bytes) + 1];  // of the beginnings of what is left, by their sizes
  for (int64_t begin = 0; begin < word.size;) {
    const Pieces &pieces = begin ? inside : starts;
    const uint8_t *rest = word.bytes + begin;
    int64_t size = std::min(word.size - begin, pieces.longest());
    hashes[0] = Pieces::SEED;
    for (int64_t i = 0; i < size; i++) hashes[i + 1] = Pieces::step(hashes[i], rest[i]);
    int32_t id = -1;
    while (size > 0 && (id = pieces.find(rest, size, hashes[size])) < 0) size--;
    if (id < 0) return whole(unknown);
    ids[made] = id;
    if (spans) {
      spans[2 * made] = word.places[begin];
      spans[2 * made + 1] = word.places[begin + size - 1] + 1;
    }
    made++;
    begin += size;
  }
  return made;
}
