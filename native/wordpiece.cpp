#include "wordpiece.h"

#include <algorithm>
#include <cstring>
#include <limits>

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

WordPiece::WordPiece(const Strings &pieces, const int32_t *ids, const Strings &prefix, int32_t unknown, int64_t most,
                     const Strings &letters, const int32_t *codes, const uint8_t *kinds)
    : starts(pieces.n), inside(pieces.n), characters(PAGE), pages(PAGES), unknown(unknown), most(most) {
  for (int64_t i = 0; i < pieces.n && whole_; i++) {
    const uint8_t *piece = pieces.at(i);
    const int64_t size = pieces.size(i), before = prefix.size(0);
    const bool within = size >= before && !std::memcmp(piece, prefix.bytes, static_cast<size_t>(before));
    whole_ = starts.add(piece, size, ids[i]) && (!within || inside.add(piece + before, size - before, ids[i]));
  }
  whole_ = whole_ && starts.scattered() && inside.scattered();
  for (int64_t i = 0; i < letters.n; i++) {
    const int32_t code = codes[i];
    const int64_t size = letters.size(i), bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : 3;
    // A text has no more ids than bytes: what becomes longer is left to the library.
    if (code < 0 || code > 0xffff || size > 64 || characters_of(letters.at(i), size) > bytes) continue;
    uint16_t &page = pages[static_cast<size_t>(code / PAGE)];
    if (!page) {
      page = static_cast<uint16_t>(characters.size() / PAGE);
      characters.resize(characters.size() + PAGE);
    }
    characters[static_cast<size_t>(page * PAGE + code % PAGE)] = {static_cast<uint32_t>(this->letters.size()),
                                                                 static_cast<uint8_t>(size), kinds[i]};
    this->letters.insert(this->letters.end(), letters.at(i), letters.at(i) + size);
  }
}

int64_t WordPiece::encode(const uint8_t *text, int64_t size, int32_t *ids) const {
  const uint8_t *const end = text + size;
  int64_t made = 0;
  Word word;
  const auto finish = [&] {
    if (!word.size) return;
    made += cut(word, ids + made);
    word.size = 0;
    word.hash = Pieces::SEED;
    word.longer = false;
  };
  while (text < end) {
    const Character *character = known(text, end);
    switch (character ? static_cast<Kind>(character->kind) : UNKNOWN) {
      case NOTHING: break;
      case SPACE: finish(); break;
      case LETTERS: grow(word, *character); break;
      case ALONE:
        finish();
        grow(word, *character);
        finish();
        break;
      default: return -1;
    }
  }
  finish();
  return made;
}

// The character that a text goes on with, and `text` behind it; NULL where it has more than 16 bits or is none.
const WordPiece::Character *WordPiece::known(const uint8_t *&text, const uint8_t *end) const {
  int32_t code = *text;
  const int64_t bytes = code < 0x80 ? 1 : code < 0xc0 ? 0 : code < 0xe0 ? 2 : code < 0xf0 ? 3 : 0;
  if (!bytes || bytes > end - text) return nullptr;
  if (bytes == 2) code = (code & 0x1f) << 6 | (text[1] & 0x3f);
  if (bytes == 3) code = (code & 0x0f) << 12 | (text[1] & 0x3f) << 6 | (text[2] & 0x3f);
  text += bytes;
  return &characters[static_cast<size_t>(pages[static_cast<size_t>(code / PAGE)] * PAGE + code % PAGE)];
}

void WordPiece::grow(Word &word, const Character &character) const {
  if (word.size > 4 * most) {  // No character has more than four bytes.
    word.longer = true;
    return;
  }
  const uint8_t *from = letters.data() + character.at;
  for (int i = 0; i < character.size; i++) {
    word.bytes[word.size++] = from[i];
    word.hash = Pieces::step(word.hash, from[i]);
  }
}

// The longest piece that a word begins with, and so on with the rest; a word with a rest that no piece begins is unknown.
int64_t WordPiece::cut(const Word &word, int32_t *ids) const {
  ids[0] = unknown;
  if (word.longer || (word.size > most && characters_of(word.bytes, word.size) > most)) return 1;
  const int32_t whole = starts.find(word.bytes, word.size, word.hash);
  if (whole >= 0) {
    ids[0] = whole;
    return 1;
  }
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
    if (id < 0) {
      ids[0] = unknown;
      return 1;
    }
    ids[made++] = id;
    begin += size;
  }
  return made;
}
