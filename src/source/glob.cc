#include "source/glob.h"

#include <cstddef>
#include <map>
#include <utility>

namespace penstock {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

/// Position behind the UTF-8 character at `i`.
size_t NextCharacter(std::string_view text, size_t i) {
  for (++i; i < text.size() && IsContinuation(text[i]); ++i) {
  }
  return i;
}

/// Where the set that opens at pattern[open] == '[' ends (position of ']'); npos: it does not, and '[' stands for
/// itself.
size_t SetEnd(std::string_view pattern, size_t open) {
  size_t first = open + 1;
  if (first < pattern.size() && (pattern[first] == '!' || pattern[first] == '^')) ++first;
  return pattern.find(']', first + 1);  // A ']' at the front is a member.
}

/// `set`: what stands between the brackets. Sets are of bytes.
bool IsInSet(std::string_view set, char c) {
  const bool is_negated = set[0] == '!' || set[0] == '^';
  if (is_negated) set.remove_prefix(1);
  const auto byte = [](char x) { return static_cast<unsigned char>(x); };
  bool is_member = false;
  for (size_t i = 0; i < set.size(); ++i) {
    const bool is_range = i + 2 < set.size() && set[i + 1] == '-';
    const char last = is_range ? set[i + 2] : set[i];
    is_member = is_member || (byte(set[i]) <= byte(c) && byte(c) <= byte(last));
    if (is_range) i += 2;
  }
  return is_member != is_negated;
}

/// Matches the one-character element at pattern[*p] against name[*n]; moves both on where it does.
bool MatchOne(std::string_view pattern, size_t* p, std::string_view name, size_t* n) {
  if (*p >= pattern.size() || *n >= name.size()) return false;
  if (pattern[*p] == '?') {
    *n = NextCharacter(name, *n);
    ++*p;
    return true;
  }
  const size_t end = pattern[*p] == '[' ? SetEnd(pattern, *p) : std::string_view::npos;
  if (end != std::string_view::npos) {
    if (!IsInSet(pattern.substr(*p + 1, end - *p - 1), name[*n])) return false;
    *p = end + 1;
  } else {
    if (pattern[*p] != name[*n]) return false;
    ++*p;
  }
  ++*n;
  return true;
}

std::string Join(const std::string& base, std::string_view name) {
  if (base.empty() || base.back() == '/') return base + std::string(name);
  return base + "/" + std::string(name);
}

/// "a/b/c" -> "a/b"; "c" -> "".
std::string_view FolderOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return path.substr(0, slash == std::string_view::npos ? 0 : slash);
}

/// Walks the folders that a pattern's components name.
class PatternWalk {
 public:
  PatternWalk(arrow::fs::FileSystem& fs, std::vector<std::string> parts) : fs_(fs), parts_(std::move(parts)) {}

  arrow::Status Expand(const std::string& base, size_t i) {
    if (parts_[i] == "**") return ExpandAnyDepth(base, i);
    if (!IsPattern(parts_[i])) return ExpandLiteral(Join(base, parts_[i]), i);
    ARROW_ASSIGN_OR_RAISE(auto infos, List(base, false));
    for (arrow::fs::FileInfo& info : infos) {
      if (!MatchesPattern(parts_[i], info.base_name())) continue;
      ARROW_RETURN_NOT_OK(Descend(std::move(info), i));
    }
    return arrow::Status::OK();
  }

  std::vector<arrow::fs::FileInfo> TakeMatches() {
    std::vector<arrow::fs::FileInfo> infos;
    for (auto& [path, info] : matches_) infos.push_back(std::move(info));
    return infos;
  }

 private:
  bool IsLast(size_t i) const { return i + 1 == parts_.size(); }

  arrow::Result<std::vector<arrow::fs::FileInfo>> List(const std::string& base, bool is_recursive) {
    arrow::fs::FileSelector selector;
    const bool is_here = base.empty() && fs_.type_name() == "local";
    selector.base_dir = is_here ? "." : base;
    selector.recursive = is_recursive;
    selector.allow_not_found = true;
    ARROW_ASSIGN_OR_RAISE(auto infos, fs_.GetFileInfo(selector));
    for (arrow::fs::FileInfo& info : infos) {
      if (is_here && info.path().starts_with("./")) info.set_path(info.path().substr(2));
    }
    return infos;
  }

  arrow::Status Descend(arrow::fs::FileInfo info, size_t i) {
    if (!IsLast(i)) return info.IsDirectory() ? Expand(info.path(), i + 1) : arrow::Status::OK();
    if (info.type() == arrow::fs::FileType::NotFound) return arrow::Status::OK();
    std::string path = info.path();
    matches_.emplace(std::move(path), std::move(info));
    return arrow::Status::OK();
  }

  arrow::Status ExpandLiteral(const std::string& path, size_t i) {
    ARROW_ASSIGN_OR_RAISE(auto info, fs_.GetFileInfo(path));
    return Descend(std::move(info), i);
  }

  arrow::Status ExpandAnyDepth(const std::string& base, size_t i) {
    // "**/name" needs one listing; what follows "**" otherwise is looked up in each folder.
    const bool is_name_next = i + 2 == parts_.size() && parts_[i + 1] != "**";
    if (!IsLast(i) && !is_name_next) ARROW_RETURN_NOT_OK(Expand(base, i + 1));
    ARROW_ASSIGN_OR_RAISE(auto infos, List(base, true));
    for (arrow::fs::FileInfo& info : infos) {
      const std::string& path = info.path();
      const std::string_view relative = std::string_view(path).substr(path.starts_with(base) ? base.size() : 0);
      if (is_name_next) {
        if (HasHiddenPart(FolderOf(relative)) || !MatchesPattern(parts_[i + 1], info.base_name())) continue;
        ARROW_RETURN_NOT_OK(Descend(std::move(info), i + 1));
        continue;
      }
      if (HasHiddenPart(relative)) continue;
      if (IsLast(i) ? !info.IsFile() : !info.IsDirectory()) continue;
      ARROW_RETURN_NOT_OK(Descend(std::move(info), i));
    }
    return arrow::Status::OK();
  }

  arrow::fs::FileSystem& fs_;
  const std::vector<std::string> parts_;
  std::map<std::string, arrow::fs::FileInfo> matches_;
};

}  // namespace

bool IsPattern(std::string_view path) { return path.find_first_of("*?[") != std::string_view::npos; }

bool HasHiddenPart(std::string_view relative_path) {
  for (size_t start = 0; start < relative_path.size();) {
    size_t end = relative_path.find('/', start);
    if (end == std::string_view::npos) end = relative_path.size();
    if (IsHiddenName(relative_path.substr(start, end - start))) return true;
    start = end + 1;
  }
  return false;
}

bool MatchesPattern(std::string_view pattern, std::string_view name) {
  if (IsHiddenName(name) && (pattern.empty() || pattern[0] != name[0])) return false;
  size_t p = 0, n = 0;
  size_t star = std::string_view::npos, star_name = 0;  // Where to go back to: the last '*' and what it has taken.
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
    } else if (!MatchOne(pattern, &p, name, &n)) {
      if (star == std::string_view::npos) return false;
      star_name = NextCharacter(name, star_name);
      p = star + 1;
      n = star_name;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

arrow::Result<PatternMatches> ExpandPattern(arrow::fs::FileSystem& fs, const std::string& pattern) {
  PatternMatches matches;
  if (pattern.starts_with('/')) matches.base = "/";
  std::vector<std::string> parts;
  for (size_t start = 0; start < pattern.size();) {
    size_t end = pattern.find('/', start);
    if (end == std::string::npos) end = pattern.size();
    const std::string part = pattern.substr(start, end - start);
    start = end + 1;
    if (part.empty()) continue;
    if (parts.empty() && !IsPattern(part)) {
      matches.base = Join(matches.base, part);
    } else {
      parts.push_back(part);
    }
  }
  PatternWalk walk(fs, std::move(parts));
  ARROW_RETURN_NOT_OK(walk.Expand(matches.base, 0));
  matches.infos = walk.TakeMatches();
  return matches;
}

}  // namespace penstock
