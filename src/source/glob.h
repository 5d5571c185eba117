#pragma once

#include <arrow/filesystem/filesystem.h>
#include <arrow/result.h>

#include <string>
#include <string_view>
#include <vector>

namespace penstock {

/// True where `path` has a character that a pattern gives a meaning to: * ? [
bool IsPattern(std::string_view path);

/// True where `name` (one path component) matches `pattern`: * any run, ? one character, [abc] [a-z] [!a] one of a set.
/// As in a shell, * and ? at the front do not match a leading '.', nor a leading '_' (such names are left out of
/// folders too).
bool MatchesPattern(std::string_view pattern, std::string_view name);

/// True for names that are left out of folders.
inline bool IsHiddenName(std::string_view name) { return !name.empty() && (name[0] == '.' || name[0] == '_'); }

/// True where some component of the relative path is a hidden name.
bool HasHiddenPart(std::string_view relative_path);

struct PatternMatches {
  std::string base;  ///< The part of the pattern before its first component with a magic character.
  std::vector<arrow::fs::FileInfo> infos;  ///< Files and folders that match, each once, sorted by path.
};

/// What matches `pattern` on `fs`; ** as a whole component stands for any number of folders. Blocking: lists folders.
arrow::Result<PatternMatches> ExpandPattern(arrow::fs::FileSystem& fs, const std::string& pattern);

}  // namespace penstock
