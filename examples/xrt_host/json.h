// JSON (RFC 8259) as far as a manifest needs it: values that are read, not written.
#pragma once

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgemoe {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  Kind kind = Kind::null;
  double number = 0;
  std::string text;  // of a number its digits, of which a double does not hold 64 bits
  std::vector<Json> items;
  std::map<std::string, Json> members;

  static Json parse(const std::string& source) {
    Parser parser{source};
    Json value = parser.value(0);
    parser.skip_space();
    if (parser.at != source.size()) parser.fail("something follows the value");
    return value;
  }

  const Json& operator[](const std::string& key) const {
    const auto found = members.find(key);
    if (found == members.end()) throw Error("no key " + key);
    return found->second;
  }

  bool has(const std::string& key) const {
    const auto found = members.find(key);
    return found != members.end() && found->second.kind != Kind::null;
  }

  const std::string& str() const {
    if (kind != Kind::text) throw Error("expected a text");
    return text;
  }

  bool flag() const {
    if (kind != Kind::boolean) throw Error("expected true or false");
    return number != 0;
  }

  // A whole number within limits.
  std::int64_t whole(std::int64_t least, std::int64_t most) const {
    char* end = nullptr;
    const long long found = kind == Kind::number ? std::strtoll(text.c_str(), &end, 10) : 0;
    if (end == nullptr || *end != '\0' || found < least || found > most)
      throw Error("expected a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                  (text.empty() ? "" : ", not " + text));
    return found;
  }

 private:
  struct Parser {
    const std::string& source;
    std::size_t at = 0;

    [[noreturn]] void fail(const std::string& what) const {
      throw Error("not JSON: " + what + " at byte " + std::to_string(at));
    }

    void skip_space() {
      while (at < source.size() &&
             (source[at] == ' ' || source[at] == '\n' || source[at] == '\t' || source[at] == '\r'))
        ++at;
    }

    char next() {
      if (at == source.size()) fail("it ends");
      return source[at++];
    }

    bool take(char wanted) {
      skip_space();
      if (at == source.size() || source[at] != wanted) return false;
      ++at;
      return true;
    }

    void expect(const std::string& word) {
      for (const char each : word)
        if (next() != each) fail("expected " + word);
    }

    Json value(int depth) {
      if (depth > 64) fail("nested too deeply");
      skip_space();
      Json found;
      const char first = next();
      --at;
      if (first == '{') {
        found.kind = Kind::object;
        ++at;
        if (take('}')) return found;
        do {
          skip_space();
          std::string key = string();
          if (!take(':')) fail("expected a colon");
          found.members[std::move(key)] = value(depth + 1);
        } while (take(','));
        if (!take('}')) fail("expected a closing brace");
      } else if (first == '[') {
        found.kind = Kind::list;
        ++at;
        if (take(']')) return found;
        do found.items.push_back(value(depth + 1));
        while (take(','));
        if (!take(']')) fail("expected a closing bracket");
      } else if (first == '"') {
        found.kind = Kind::text;
        found.text = string();
      } else if (first == 't' || first == 'f') {
        found.kind = Kind::boolean;
        found.number = first == 't';
        expect(first == 't' ? "true" : "false");
      } else if (first == 'n') {
        expect("null");
      } else {
        found.kind = Kind::number;
        const std::size_t start = at;
        while (at < source.size() && (std::isalnum(static_cast<unsigned char>(source[at])) ||
                                      source[at] == '-' || source[at] == '+' || source[at] == '.'))
          ++at;
        found.text = source.substr(start, at - start);
        char* end = nullptr;
        found.number = std::strtod(found.text.c_str(), &end);
        if (found.text.empty() || *end != '\0') fail("expected a value");
      }
      return found;
    }

    std::string string() {
      if (next() != '"') fail("expected a text");
      std::string found;
      for (char each = next(); each != '"'; each = next()) {
        if (each != '\\') {
          found += each;
          continue;
        }
        switch (const char escaped = next()) {
          case '"':
          case '\\':
          case '/':
            found += escaped;
            break;
          case 'b':
            found += '\b';
            break;
          case 'f':
            found += '\f';
            break;
          case 'n':
            found += '\n';
            break;
          case 'r':
            found += '\r';
            break;
          case 't':
            found += '\t';
            break;
          case 'u':
            append_utf8(found, code_point());
            break;
          default:
            fail("an escape that JSON does not have");
        }
      }
      return found;
    }

    std::uint32_t four_digits() {
      std::uint32_t found = 0;
      for (int digit = 0; digit < 4; ++digit) {
        const char each = next();
        if (!std::isxdigit(static_cast<unsigned char>(each))) fail("expected a hexadecimal digit");
        found = 16 * found + static_cast<std::uint32_t>(std::stoi(std::string(1, each), nullptr, 16));
      }
      return found;
    }

    std::uint32_t code_point() {
      const std::uint32_t first = four_digits();
      if (first < 0xD800 || first > 0xDBFF) return first;
      expect("\\u");
      return 0x10000 + ((first - 0xD800) << 10) + (four_digits() & 0x3FF);
    }

    static void append_utf8(std::string& text, std::uint32_t code) {
      const auto byte = [&text](std::uint32_t value) { text += static_cast<char>(value); };
      if (code < 0x80) {
        byte(code);
      } else if (code < 0x800) {
        byte(0xC0 | code >> 6);
        byte(0x80 | (code & 0x3F));
      } else if (code < 0x10000) {
        byte(0xE0 | code >> 12);
        byte(0x80 | (code >> 6 & 0x3F));
        byte(0x80 | (code & 0x3F));
      } else {
        byte(0xF0 | code >> 18);
        byte(0x80 | (code >> 12 & 0x3F));
        byte(0x80 | (code >> 6 & 0x3F));
        byte(0x80 | (code & 0x3F));
      }
    }
  };
};

}  // namespace edgemoe
