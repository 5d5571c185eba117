#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "penstock/ops.h"

namespace penstock {

/// What is done to a source column's arrays where they are decoded, before they are converted or copied: a field is
/// taken out of structs, tensors get their shape, run ends are decoded.
///
/// Ownership: value, shared parts immutable. Threads: any.
class Preparation {
 public:
  class Step {
   public:
    virtual ~Step() = default;
    virtual arrow::Result<std::shared_ptr<arrow::Array>> Run(const std::shared_ptr<arrow::Array>& array,
                                                             arrow::MemoryPool* pool) const = 0;
  };

  Preparation() = default;
  /// \param field  the column as it comes.
  explicit Preparation(std::shared_ptr<arrow::Field> field) : field_(std::move(field)) {}

  /// The column as it is after all steps.
  const std::shared_ptr<arrow::Field>& field() const { return field_; }
  /// Extents of each row of a tensor of variable shape, whose column is struct<data: list, shape: fixed_size_list>; 0:
  /// it is none.
  int tensor_ndim() const { return tensor_ndim_; }

  /// Takes the field at `path` out of structs, also of structs in lists: list<struct<a>> becomes list<a>. A value is
  /// missing where a struct around it is. \return KeyError where there is no such field.
  arrow::Status TakeField(const std::vector<std::string>& path);
  /// The storage of tensor types of Arrow, Ray and Hugging Face with the shape that their metadata say; run ends
  /// decoded; the null type as float32.
  /// \return TypeError where the column has no such form.
  arrow::Status MakeTensors();
  /// A dictionary column as a column of its values; others stay as they are.
  arrow::Status DecodeDictionary();
  /// Missing strings become `value`; so do missing items of lists of numbers, whose missing lists become empty.
  /// \return TypeError for other columns, and where text and numbers do not go together.
  arrow::Status Fill(const ops::FillNull& value);

  /// The array after all steps, with memory from `pool` where it is not the same.
  /// \return Invalid where a tensor's values do not have its shape.
  arrow::Result<std::shared_ptr<arrow::Array>> Run(std::shared_ptr<arrow::Array> array, arrow::MemoryPool* pool) const;
  bool is_empty() const { return steps_.empty(); }

 private:
  arrow::Status MakeFixedTensor(const std::string& metadata, bool is_flat);
  arrow::Status MakeVariableTensor(int ndim);
  void Add(std::shared_ptr<const Step> step, std::shared_ptr<arrow::Field> field) {
    steps_.push_back(std::move(step));
    field_ = std::move(field);
  }

  std::shared_ptr<arrow::Field> field_;
  int tensor_ndim_ = 0;
  std::vector<std::shared_ptr<const Step>> steps_;
};

}  // namespace penstock
