#pragma once

#include <arrow/status.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/dtype.h"
#include "source/column_path.h"
#include "source/parquet_file.h"
#include "source/projection.h"

namespace parquet {
class ColumnDescriptor;
}  // namespace parquet

/// What the readers of a row group, their plan and their estimates share. Private to src/source.
namespace penstock {

/// Stream buffer of one column chunk, or the chunk's size where that is less. There is one per open column, and it is
/// allocated twice while Arrow grows it, so it is small; timings of 16 KiB to 1 MiB on a busy machine showed no gain
/// from larger ones, but do not settle the matter.
inline constexpr int64_t kStreamBufferBytes = 64 * 1024;

/// The most that a dictionary converted to slot values may take; a larger one is converted per row.
inline constexpr int64_t kMaxTableBytes = 4 * 1024 * 1024;

/// Parquet's leaf columns of a column, or of a field in its structs; empty where the file has no such column, or
/// several.
std::vector<int> LeavesOf(const ParquetFile& file, const ColumnPath& path);

/// The field of a column that ListColumn takes; null for others.
std::shared_ptr<arrow::Field> ListField(const ParquetFile& file, int row_group, const ColumnPath& path);

/// The field of a column that BytesColumn takes, as its arrays are: views become arrays with offsets, as slots have
/// them, where no filter looks at them and only copying comes after it. Null for others.
std::shared_ptr<arrow::Field> BytesField(const Projection& projection, const ParquetFile& file, const ColumnPath& path);

/// What a typed column reader's values are for Converter::Convert; nullopt where the pair is none that it takes.
std::optional<DType> DirectForm(const parquet::ColumnDescriptor& leaf, const arrow::DataType& type);

/// Bytes of stream buffer for these leaves: kStreamBufferBytes, less where all of them are small.
int64_t StreamBufferBytes(const ParquetFile& file, int row_group, const std::vector<int>& leaves);

/// `status` with "'path', row group g, column 'c': " in front; without the column where it is empty.
arrow::Status InColumn(const arrow::Status& status, const ParquetFile& file, int row_group, const std::string& column);

}  // namespace penstock
