#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "penstock/dtype.h"

namespace penstock {

class CustomOp;  // penstock/custom_op.h

/// Native transforms: plain descriptions, compiled into one pass over the rows when a loader is made.
/// A chain of them runs on one column, left to right, on the workers, without Python.
namespace ops {

/// To another number type. Values that do not fit (overflow, a fraction or NaN into an integer) are an error that names
/// the row. Strings are parsed as decimal numbers.
struct Cast {
  DType to;
};

/// Puts `value` where a value is missing. After it the column has no nulls.
struct FillNull {
  double value = 0;                 ///< For numbers and bools.
  std::optional<std::string> text;  ///< For strings and binary.
  std::optional<int64_t> integer;   ///< For integers beyond 2^53; wins over `value`.
};

/// A bucket in [0, buckets) for an integer, bool, string or binary value; int64. The hash is 64-bit xxHash (XXH64, seed
/// 0) of the bytes of a string or of the value as a little-endian int64; the same on every machine and version.
struct HashBucket {
  int64_t buckets;
};

/// The position of the value in `vocabulary` (strings, binary or integers, each value once), int64. A value that is not
/// in it gives `missing`, or an error that names the value where `missing` is not set.
struct Lookup {
  std::shared_ptr<arrow::Array> vocabulary;
  std::optional<int64_t> missing;
};

/// (x - mean) / std; float64 from float64, decimals and 64-bit integers, float32 otherwise.
struct Scale {
  double mean = 0;
  double std = 1;
};

/// min(max(x, lower), upper); the type stays. A bound that is not set does not clip. NaN stays NaN.
struct Clip {
  std::optional<double> lower;
  std::optional<double> upper;
};

/// For benchmarks and tests: passes the value on after spinning on the processor (or sleeping) for a time drawn per row
/// from a lognormal distribution, keyed by the row's position in its row group so that every run spends the same.
struct Spin {
  double mean_us = 100;
  double sigma = 0.5;
  int64_t heavy_every = 0;  ///< Every n-th row (by hash, on average) costs heavy_factor times as much; 0: none.
  double heavy_factor = 100;
  bool is_sleep = false;
};

enum class Side : uint8_t { kLeft, kRight };

/// A list column (list, large_list, their views) as rows of `length` items. Ops in front of it and behind it run on
/// items; what is put in for padding goes through those behind it. All items of a missing list are missing.
struct PadList {
  int64_t length = 0;                 ///< >= 1.
  FillNull value = {};                ///< A number, for the type that the items have at this place.
  Side side = Side::kRight;           ///< Where padding goes.
  std::optional<Side> truncate = {};  ///< Where longer lists lose items; not set: they are an error.
};

/// A list column (list, large_list, their views) as rows of `length` consecutive items, whichever lists they are from:
/// no padding but in the last row. A row of the batches is then such a run of items, so that all columns of a loader
/// are packed, to one length, and their lists in a row of the source must be equally long. Ops in front of it and
/// behind it run on items. Lists that are missing have no items.
struct Pack {
  int64_t length = 0;   ///< >= 1.
  FillNull value = {};  ///< Fills up the last row; a number, for the type that the items have at this place.
};

/// The number of items of each list, int64. The first in its chain.
struct ListLength {};

/// An op of your own, see penstock/custom_op.h. The first in its chain: it takes the column as it is in the file.
struct Custom {
  std::shared_ptr<const CustomOp> op;
};

}  // namespace ops

using Op = std::variant<ops::Cast, ops::FillNull, ops::HashBucket, ops::Lookup, ops::Scale, ops::Clip, ops::Spin,
                        ops::PadList, ops::Pack, ops::ListLength, ops::Custom>;

/// One column of the output: `ops` applied to the column `input` of the source.
struct Transform {
  std::string output;
  std::string input;
  std::vector<Op> ops;
};

}  // namespace penstock
