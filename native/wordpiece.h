// WordPiece: texts to the ids of a vocabulary's pieces, as the tokenizers library gives them. It knows no rule of
// Unicode: what becomes of each character it is told by the caller, who asks that library, and a text with any other
// character is left to it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "crossrank.h"

inline const uint8_t *at(const crossrank_strings &strings, int64_t i) { return strings.bytes + strings.offsets[i]; }
inline int64_t size(const crossrank_strings &strings, int64_t i) { return strings.offsets[i + 1] - strings.offsets[i]; }

// What becomes of each character, as far as it was told. It is read while it is told more, without locks: a fork may come
// at any moment. A character that is being told of is not known yet.
class Characters {
 public:
  static constexpr int32_t END = 0x30000;  // the planes of scripts, emoji and ideographs
  struct Character {
    std::atomic<uint8_t> kind{CROSSRANK_UNKNOWN};  // of crossrank_character, written last
    uint8_t size;
    uint8_t letters[14];
  };

  Characters() = default;
  ~Characters();
  Characters(const Characters &) = delete;
  Characters &operator=(const Characters &) = delete;
  // What is told of a character that is known changes nothing, and what has no room here stays unknown.
  void tell(int32_t code, uint8_t kind, const uint8_t *letters, int64_t size);
  // The character that a UTF-8 text goes on with, and `text` behind it; NULL where it is none or was not told of.
  const Character *next(const uint8_t *&text, const uint8_t *end) const;

 private:
  static constexpr int32_t PAGE = 256;
  static constexpr uint8_t BEING_TOLD = 255;
  std::atomic<Character *> pages[END / PAGE] = {};
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
  // Characters of a word that is no unknown one by its length, at most.
  static constexpr int64_t MOST = 256;

  // The one string of `prefix` begins the pieces within a word. A word of more than `most` characters (1 ... MOST) is
  // `unknown`.
  WordPiece(const crossrank_strings &pieces, const int32_t *ids, const crossrank_strings &prefix, int32_t unknown,
            int64_t most);
  // Whether the vocabulary could be taken up; nothing else may be asked otherwise.
  bool whole() const { return whole_; }
  // Writes the ids of a UTF-8 text, no more than it has bytes, and says how many; -1 where it has a character that is
  // not known. What is written then means nothing. The characters that id i stands for are spans[2 * i] ...
  // spans[2 * i + 1] - 1 of the text, where `spans` is not NULL.
  int64_t encode(const Characters &characters, const uint8_t *text, int64_t size, int32_t *ids, int32_t *spans) const;

 private:
  struct Word {
    uint8_t bytes[4 * MOST + 64];
    int32_t places[sizeof(bytes)];  // of the characters that they come from, in the text
    int32_t last = 0;               // of the places, that of a byte which was not kept too
    int64_t size = 0;
    uint32_t hash = Pieces::SEED;
    bool longer = false;  // than it may be: its bytes were not kept
  };

  void grow(Word &word, const Characters::Character &character, int32_t place) const;
  int64_t cut(const Word &word, int32_t *ids, int32_t *spans) const;

  Pieces starts, inside;  // of a word, and behind its start: those without the prefix
  int32_t unknown;
  int64_t most;
  bool whole_ = true;
};
