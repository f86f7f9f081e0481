// WordPiece: texts to the ids of a vocabulary's pieces, as the tokenizers library gives them. It knows no rule of
// Unicode: what becomes of each character is in a table that the caller asked that library for, and a text with any
// other character is left to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// String i of n is bytes[offsets[i] .. offsets[i + 1]).
struct Strings {
  const uint8_t *bytes;
  const int64_t *offsets;
  int64_t n;
  const uint8_t *at(int64_t i) const { return bytes + offsets[i]; }
  int64_t size(int64_t i) const { return offsets[i + 1] - offsets[i]; }
};

// Strings and their ids, in open addressing.
class Pieces {
 public:
  // How a hash begins, and how it takes up a byte (FNV-1a): those of all beginnings of a word come in one pass.
  static constexpr uint32_t SEED = 0x811c9dc5u;
  static uint32_t step(uint32_t hash, uint8_t byte) { return (hash ^ byte) * 0x01000193u; }

  explicit Pieces(int64_t most);  // strings to come, at most
  // False where too many strings meet at one place, which no honest vocabulary does: a hostile one would take hours.
  bool add(const uint8_t *bytes, int64_t size, int32_t id);
  // Whether no strings that were added lie in so long a row that what is none of them takes as long to be found so.
  bool scattered() const;
  // The id of a string whose hash is known; -1 where it is none of these.
  int32_t find(const uint8_t *bytes, int64_t size, uint32_t hash) const;
  int64_t longest() const { return longest_; }

 private:
  struct Slot { uint32_t hash; int32_t id; uint32_t at, size; };  // free where `id` is -1
  static constexpr int MOST_STEPS = 256;  // honest vocabularies have rows of 30 to 60
  size_t place(uint32_t hash) const { return (hash ^ hash >> 15) & (slots.size() - 1); }

  std::vector<Slot> slots;  // a power of two, half of them free
  std::vector<uint8_t> pool;
  int64_t longest_ = 0;
};

class WordPiece {
 public:
  // What a character becomes: nothing; the end of a word; a part of one; a word of its own.
  enum Kind : uint8_t { UNKNOWN = 0, NOTHING = 1, SPACE = 2, LETTERS = 3, ALONE = 4 };
  // Characters of a word that is no unknown one by its length, at most.
  static constexpr int64_t MOST = 256;

  // `prefix` begins the pieces within a word. A word of more than `most` characters (1 ... MOST) is `unknown`.
  // kinds[i] says what character codes[i], at most 0xffff, becomes: letters(i).
  WordPiece(const Strings &pieces, const int32_t *ids, const Strings &prefix, int32_t unknown, int64_t most,
            const Strings &letters, const int32_t *codes, const uint8_t *kinds);
  // Whether the vocabulary could be taken up; nothing else may be asked otherwise.
  bool whole() const { return whole_; }
  // Writes the ids of a UTF-8 text, no more than it has bytes, and says how many; -1 where it has a character that is
  // not in the table. What is written then means nothing.
  int64_t encode(const uint8_t *text, int64_t size, int32_t *ids) const;

 private:
  struct Character { uint32_t at; uint8_t size, kind; };
  struct Word {
    uint8_t bytes[4 * MOST + 64];
    int64_t size = 0;
    uint32_t hash = Pieces::SEED;
    bool longer = false;  // than it may be: its bytes were not kept
  };
  static constexpr int64_t PAGE = 64, PAGES = 0x10000 / PAGE;

  const Character *known(const uint8_t *&text, const uint8_t *end) const;
  void grow(Word &word, const Character &character) const;
  int64_t cut(const Word &word, int32_t *ids) const;

  Pieces starts, inside;  // of a word, and behind its start: those without the prefix
  std::vector<Character> characters;  // pages of PAGE; the first knows none
  std::vector<uint16_t> pages;
  std::vector<uint8_t> letters;
  int32_t unknown;
  int64_t most;
  bool whole_ = true;
};
