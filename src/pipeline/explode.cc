#include "pipeline/explode.h"

#include <arrow/array/array_primitive.h>
#include <arrow/buffer.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "ops/flatten.h"
#include "ops/list_reader.h"

namespace penstock {
namespace {

using ArrayPtr = std::shared_ptr<arrow::Array>;

int64_t NumberOf(const PieceReader::Piece& piece, int64_t row) {
  if (piece.row_numbers == nullptr) return piece.first_row + row;
  return static_cast<const arrow::Int64Array&>(*piece.row_numbers).Value(row);
}

/// Where each row's items begin, counted through, and where the last one's end.
class Begins {
 public:
  static arrow::Result<Begins> Make(int64_t rows, arrow::MemoryPool* pool) {
    Begins begins;
    ARROW_ASSIGN_OR_RAISE(begins.buffer_, arrow::AllocateBuffer((rows + 1) * int64_t{sizeof(int64_t)}, pool));
    begins.data()[0] = 0;
    return begins;
  }

  int64_t* data() { return reinterpret_cast<int64_t*>(buffer_->mutable_data()); }
  ArrayPtr ToArray(int64_t rows) { return std::make_shared<arrow::Int64Array>(rows + 1, std::move(buffer_)); }

 private:
  std::shared_ptr<arrow::Buffer> buffer_;
};

// The first column says how many items each row has, the others must agree.
arrow::Status CountItems(const ListReader& lists, const OutputColumn& output, const OutputColumn* first,
                         const PieceReader::Piece& piece, int64_t* begins) {
  const int64_t rows = piece.rows->num_rows();
  for (int64_t row = 0; row < rows; ++row) {
    const ListReader::List list = lists.At(row);
    if (list.is_missing && output.refuses_missing_lists) {
      return arrow::Status::Invalid("row ", NumberOf(piece, row),
                                    " is null; use ps.ops.fill_null or nulls=\"mask\": a missing list then has no "
                                    "items");
    }
    if (first == nullptr) {
      begins[row + 1] = begins[row] + list.size;
    } else if (list.size != begins[row + 1] - begins[row]) {
      return arrow::Status::Invalid("row ", NumberOf(piece, row), ": a list of ", list.size, " items where '",
                                    first->path().ToString(), "' has ", begins[row + 1] - begins[row],
                                    "; columns that are packed together must have lists of the same lengths: make "
                                    "them so, or leave one out (columns=)");
    }
  }
  return arrow::Status::OK();
}

arrow::Result<ArrayPtr> ItemsOf(const arrow::Array& lists, int64_t items, arrow::MemoryPool* pool) {
  ARROW_ASSIGN_OR_RAISE(ArrayPtr flat, FlattenLists(lists, pool));
  if (flat->length() == items) return flat;
  return arrow::Status::Invalid("the lists have ", flat->length(), " items where ", items, " were counted");
}

const int64_t* BeginsOf(const PieceReader::Piece& piece) {
  return static_cast<const arrow::Int64Array&>(*piece.documents).raw_values();
}

// Its position in the piece.
int64_t RowOf(const PieceReader::Piece& piece, int64_t item) {
  const int64_t* begins = BeginsOf(piece);
  return std::upper_bound(begins, begins + piece.documents->length(), item) - begins - 1;
}

}  // namespace

arrow::Status Explode(const Projection& projection, const std::vector<int>& outputs, int64_t skip_items,
                      arrow::MemoryPool* pool, PieceReader::Piece* piece) {
  const int64_t rows = piece->rows->num_rows();
  ARROW_ASSIGN_OR_RAISE(Begins begins, Begins::Make(rows, pool));
  arrow::FieldVector fields;
  arrow::ArrayVector columns;
  const OutputColumn* first = nullptr;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const OutputColumn& output = projection.outputs[static_cast<size_t>(outputs[i])];
    const auto in_column = [&](const arrow::Status& status) {
      return status.ok() ? status : status.WithMessage("column '", output.path().ToString(), "': ", status.message());
    };
    const ArrayPtr array = piece->rows->column(static_cast<int>(i));
    const auto lists = ListReader::Open(*array->data());
    ARROW_RETURN_NOT_OK(in_column(lists.status()));
    ARROW_RETURN_NOT_OK(in_column(CountItems(*lists, output, first, *piece, begins.data())));
    first = first == nullptr ? &output : first;
    auto items = ItemsOf(*array, begins.data()[rows], pool);
    ARROW_RETURN_NOT_OK(in_column(items.status()));
    fields.push_back(arrow::field(piece->rows->schema()->field(static_cast<int>(i))->name(), (*items)->type()));
    columns.push_back((*items)->Slice(std::min(skip_items, (*items)->length())));
  }
  if (skip_items > 0 && (rows == 0 || begins.data()[1] < skip_items)) {
    return arrow::Status::Invalid("row ", rows == 0 ? piece->first_row : NumberOf(*piece, 0), " has fewer than the ",
                                  skip_items, " items that were given of it: the data is not what it was");
  }
  for (int64_t row = 0; row <= rows; ++row) begins.data()[row] -= skip_items;
  const int64_t items = begins.data()[rows];
  piece->documents = begins.ToArray(rows);
  piece->rows = arrow::RecordBatch::Make(arrow::schema(std::move(fields)), items, std::move(columns));
  return arrow::Status::OK();
}

ItemPlace PlaceOf(const PieceReader::Piece& piece, int64_t item) {
  const int64_t* begins = BeginsOf(piece);
  const int64_t row = RowOf(piece, item);
  return {NumberOf(piece, row), item + 1 - begins[row], item + 1 == begins[row + 1]};
}

void WritePositions(const PieceReader::Piece& piece, int64_t first, int64_t n, int64_t slot_row, int64_t length,
                    int32_t* out) {
  const int64_t* begins = BeginsOf(piece);
  int64_t row = RowOf(piece, first);
  for (int64_t done = 0; done < n;) {
    while (begins[row + 1] <= first + done) ++row;
    const int64_t in_sequence = (slot_row + done) % length;
    const int64_t end = std::min({n, begins[row + 1] - first, done + length - in_sequence});
    const int64_t position = std::min(in_sequence, first + done - begins[row]);
    std::iota(out + done, out + end, static_cast<int32_t>(position));
    done = end;
  }
}

}  // namespace penstock
