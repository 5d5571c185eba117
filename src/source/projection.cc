#include "source/projection.h"

#include <arrow/array/builder_binary.h>
#include <arrow/type.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "batch/varying_column.h"
#include "source/column_layout.h"
#include "source/prune.h"
#include "source/source.h"
#include "source/text.h"
#include "source/varying_field.h"

namespace penstock {
namespace {

/// One output before it is resolved: its name, its source column and what is done on the way.
struct OutputRequest {
  std::string name;
  std::string input;
  const std::vector<Op>* ops = nullptr;
};

const std::vector<Op> kNoOps;

/// The columns asked for, with Layout::kTensor each struct as its fields.
std::vector<std::string> ColumnNames(const LoaderOptions& options, const arrow::Schema& schema,
                                     const std::set<std::string>& transformed) {
  const bool is_all = !options.columns;
  if (options.layout == Layout::kArrow) return is_all ? schema.field_names() : *options.columns;
  std::vector<std::string> names;
  for (const std::string& name : is_all ? schema.field_names() : *options.columns) {
    const auto path = FindPath(schema, name);
    Preparation preparation(path ? schema.GetFieldByName(path->column) : nullptr);
    const bool is_known = preparation.field() != nullptr && preparation.TakeField(path->fields).ok();
    if (!is_known || transformed.contains(name)) {
      names.push_back(name);
      continue;
    }
    for (std::string& leaf : LeafNames(*preparation.field()->WithName(name))) {
      const bool is_shadowed = is_all && leaf != name && !schema.GetAllFieldIndices(leaf).empty();
      if (!is_shadowed) names.push_back(std::move(leaf));
    }
  }
  return names;
}

/// The outputs in their order: see MakeProjection.
arrow::Result<std::vector<OutputRequest>> RequestOutputs(const LoaderOptions& options, const arrow::Schema& schema) {
  std::map<std::string, const Transform*> transforms;
  std::set<std::string> transformed;
  for (const Transform& transform : options.transforms) {
    if (!transforms.emplace(transform.output, &transform).second) {
      return arrow::Status::Invalid("transforms: the output ", text::Quoted(transform.output), " is given twice");
    }
    transformed.insert(transform.output);
  }
  std::vector<OutputRequest> requests;
  std::set<std::string> names;
  for (const std::string& name : ColumnNames(options, schema, transformed)) {
    if (!names.insert(name).second) {
      return arrow::Status::Invalid(
          "the column ", text::Quoted(name),
          options.columns ? " is given twice in `columns`" : " occurs twice in the file; give `columns` without it");
    }
    const auto transform = transforms.find(name);
    if (transform == transforms.end()) {
      requests.push_back({name, name, &kNoOps});
    } else {
      requests.push_back({name, transform->second->input, &transform->second->ops});
    }
  }
  for (const Transform& transform : options.transforms) {
    if (!names.contains(transform.output)) requests.push_back({transform.output, transform.input, &transform.ops});
  }
  if (requests.empty())
    return arrow::Status::Invalid("there is no column to load: `columns` and `transforms` are empty");
  return requests;
}

/// Columns that no file has: where a row comes from.
arrow::Result<OutputColumn> ResolveIdentity(const OutputRequest& request, const Source& source) {
  OutputColumn output;
  output.input = request.input;
  const bool is_file = request.input == kFileColumn;
  output.identity = is_file ? OutputColumn::Identity::kFile : OutputColumn::Identity::kRowId;
  output.field.name = request.name;
  output.field.dtype = is_file ? DType::kInt32 : DType::kInt64;
  output.field.source_type = is_file ? arrow::dictionary(arrow::int32(), arrow::utf8()) : arrow::int64();
  output.field.arrow_type = output.field.source_type;
  output.input_field = arrow::field(request.name, output.field.source_type, /*nullable=*/false);
  if (!request.ops->empty()) {
    return arrow::Status::Invalid("column ", text::Quoted(request.input), " takes no ops; apply them to a copy of it");
  }
  if (!is_file) return output;
  arrow::StringBuilder names;
  for (const std::string& name : source.file_names()) ARROW_RETURN_NOT_OK(names.Append(name));
  if (names.length() == 0) {
    return arrow::Status::Invalid("column ", text::Quoted(request.input), ": this source has no files");
  }
  ARROW_ASSIGN_OR_RAISE(output.field.vocabulary, names.Finish());
  return output;
}

bool IsIdentity(const OutputRequest& request, const arrow::Schema& schema) {
  return (request.input == kRowIdColumn || request.input == kFileColumn) && !schema.GetFieldByName(request.input);
}

std::string UnknownColumn(const std::string& name, const arrow::Schema& schema, const std::string& source) {
  const bool is_dotted = name.find('.') != std::string::npos;
  return text::UnknownColumn(name, source, is_dotted ? LeafNames(schema) : schema.field_names());
}

arrow::Result<OutputColumn> ResolveInput(const OutputRequest& request, const arrow::Schema& schema, int num_partitions,
                                         const std::string& source) {
  if (schema.GetAllFieldIndices(request.input).size() > 1) {
    return arrow::Status::Invalid("column ", text::Quoted(request.input), " occurs ",
                                  schema.GetAllFieldIndices(request.input).size(), " times in ", text::Quoted(source),
                                  "; it cannot be told which is meant");
  }
  const auto path = FindPath(schema, request.input);
  if (!path) {
    const std::string unknown = UnknownColumn(request.input, schema, source);
    if (request.input == request.name) return arrow::Status::Invalid(unknown);
    return arrow::Status::Invalid("the input of ", text::Quoted(request.name), ": ", unknown);
  }
  const int index = schema.GetFieldIndex(path->column);
  OutputColumn output;
  output.input = path->column;
  output.fields = path->fields;
  output.input_field = schema.field(index);
  output.partition_index = std::max(-1, index - (schema.num_fields() - num_partitions));
  output.preparation = Preparation(output.input_field);
  ARROW_RETURN_NOT_OK(output.preparation.TakeField(output.fields));
  return output;
}

/// Fill values for columns that are not there are mistakes in a name.
arrow::Status CheckFills(const NullPolicy& nulls, const std::vector<OutputRequest>& requests) {
  std::vector<std::string> names;
  for (const OutputRequest& request : requests) names.push_back(request.name);
  for (const auto& [name, fill] : nulls.fill) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string nearest = text::NearMiss(name, names);
    return arrow::Status::Invalid("nulls: there is no output column ", text::Quoted(name),
                                  nearest.empty() ? "" : "; did you mean " + text::Quoted(nearest) + "?");
  }
  return arrow::Status::OK();
}

/// Ops that look at the values of a dictionary column; others leave codes codes.
bool IsConsumer(const Op& op) {
  return std::holds_alternative<ops::Cast>(op) || std::holds_alternative<ops::HashBucket>(op) ||
         std::holds_alternative<ops::Lookup>(op) || std::holds_alternative<ops::Custom>(op);
}

bool NeedsVocabulary(const OutputRequest& request, const OutputColumn& output) {
  return output.fields.empty() && output.input_field->type()->id() == arrow::Type::DICTIONARY &&
         std::none_of(request.ops->begin(), request.ops->end(), IsConsumer);
}

/// What is put in where a value is missing before any op looks at it; null: nothing.
const ops::FillNull* FirstFill(const OutputRequest& request, const NullPolicy& nulls) {
  if (!request.ops->empty()) return std::get_if<ops::FillNull>(&request.ops->front());
  const auto fill = nulls.fill.find(request.name);
  return fill == nulls.fill.end() ? nullptr : &fill->second;
}

bool IsFill(const Op& op) { return std::holds_alternative<ops::FillNull>(op); }

arrow::Status InOutput(const OutputRequest& request, const arrow::Status& status) {
  return status.ok() ? status : status.WithMessage("column '", request.name, "': ", status.message());
}

/// Of a column that no Converter takes.
arrow::Status MakeVarying(const LoaderOptions& options, const OutputRequest& request, const ops::FillNull* fill,
                          OutputColumn* output) {
  if (fill != nullptr) ARROW_RETURN_NOT_OK(output->preparation.Fill(*fill));
  return VaryingField(request.name, output->preparation, options.layout, options.nulls).Value(&output->field);
}

arrow::Status MakeOutput(const LoaderOptions& options, const OutputRequest& request,
                         std::shared_ptr<arrow::Array> vocabulary, OutputColumn* output) {
  const bool is_tensor = options.layout == Layout::kTensor;
  const bool is_coded = vocabulary != nullptr;
  const bool has_ops = !std::ranges::all_of(*request.ops, IsFill);
  const ops::FillNull* fill = FirstFill(request, options.nulls);
  Preparation& preparation = output->preparation;
  const auto source_type = preparation.field()->type();
  if (!output->fields.empty()) ARROW_RETURN_NOT_OK(InOutput(request, preparation.DecodeDictionary()));
  if (is_tensor && output->partition_index < 0) ARROW_RETURN_NOT_OK(InOutput(request, preparation.MakeTensors()));
  const auto takes_array = [&] {
    return is_tensor ? IsVarying(*preparation.field()) : NeedsArray(*preparation.field());
  };
  const bool is_varying = !is_coded && !has_ops && takes_array();
  const bool is_filled_list = !is_tensor && fill != nullptr && !IsVarying(*preparation.field());
  if (is_varying && !is_filled_list) {
    ARROW_RETURN_NOT_OK(InOutput(request, MakeVarying(options, request, fill, output)));
    output->field.source_type = source_type;
    return arrow::Status::OK();
  }
  ARROW_ASSIGN_OR_RAISE(output->converter, Converter::Make(request.name, *preparation.field(), *request.ops,
                                                           options.nulls, options.layout, std::move(vocabulary)));
  output->field = output->converter->field();
  output->field.source_type = source_type;
  return arrow::Status::OK();
}

const ops::Pack* PackOf(const OutputRequest& request) {
  const auto pack =
      std::ranges::find_if(*request.ops, [](const Op& op) { return std::holds_alternative<ops::Pack>(op); });
  return pack == request.ops->end() ? nullptr : &std::get<ops::Pack>(*pack);
}

/// Rows are runs of items, or they are not: of all columns.
arrow::Status FindPacking(const LoaderOptions& options, const std::vector<OutputRequest>& requests, Packing* packing) {
  const auto first = std::ranges::find_if(requests, [](const OutputRequest& each) { return PackOf(each) != nullptr; });
  if (first == requests.end()) return arrow::Status::OK();
  packing->length = PackOf(*first)->length;
  for (const OutputRequest& request : requests) {
    const ops::Pack* pack = PackOf(request);
    if (pack == nullptr) {
      return arrow::Status::Invalid(
          "column ", text::Quoted(request.name), " is not packed, but ", text::Quoted(first->name),
          " is: rows are then runs of items, and all columns must have them. Leave it out (",
          "columns=), or give it ps.ops.pack(", packing->length, ") where its lists are as long");
    }
    if (pack->length != packing->length) {
      return arrow::Status::Invalid("ps.ops.pack: the length of ", text::Quoted(request.name), " is ", pack->length,
                                    " and that of ", text::Quoted(first->name), " is ", packing->length,
                                    "; all columns are packed to one length");
    }
  }
  constexpr int64_t kMostItems = std::numeric_limits<int32_t>::max();
  if (packing->length >= 1 && options.batch_size > kMostItems / packing->length) {
    return arrow::Status::Invalid("ps.ops.pack: a batch of ", options.batch_size, " rows of ", packing->length,
                                  " items has more than 2^31 - 1 items; lower batch_size");
  }
  return arrow::Status::OK();
}

/// A column of items in rows of so many.
void MakePacked(const LoaderOptions& options, const OutputRequest& request, int64_t length, OutputColumn* output) {
  Field& field = output->field;
  field.shape.insert(field.shape.begin(), length);
  field.arrow_type = arrow::fixed_size_list(field.arrow_type, static_cast<int32_t>(length));
  output->refuses_missing_lists =
      options.layout == Layout::kTensor && options.nulls.otherwise == NullPolicy::Kind::kError &&
      !options.nulls.fill.contains(request.name) && std::ranges::none_of(*request.ops, IsFill);
}

arrow::Status MakePacking(const LoaderOptions& options, const std::vector<OutputRequest>& requests,
                          Projection* projection) {
  Packing& packing = projection->packing;
  if (!packing.is_any()) return arrow::Status::OK();
  for (size_t i = 0; i < requests.size(); ++i) {
    OutputColumn& output = projection->outputs[i];
    MakePacked(options, requests[i], packing.length, &output);
    const uint8_t* element = output.converter->padding();
    std::array<uint8_t, 16>& padding = packing.padding.emplace_back();
    std::copy(element, element + padding.size(), padding.begin());
  }
  OutputColumn& first = projection->outputs.front();
  first.field.has_segments = options.layout == Layout::kTensor;
  OutputColumn positions;
  positions.identity = OutputColumn::Identity::kPosition;
  positions.input = first.field.name + "_positions";
  positions.field.name = positions.input;
  positions.field.dtype = DType::kInt32;
  positions.field.shape = {packing.length};
  positions.field.source_type = arrow::int32();
  positions.field.arrow_type = arrow::fixed_size_list(arrow::int32(), static_cast<int32_t>(packing.length));
  positions.input_field = arrow::field(positions.input, arrow::int32(), /*nullable=*/false);
  const bool is_taken =
      std::ranges::any_of(requests, [&](const OutputRequest& request) { return request.name == positions.field.name; });
  if (is_taken) {
    return arrow::Status::Invalid("ps.ops.pack gives ", text::Quoted(positions.field.name),
                                  ", and a column has that name; leave it out (columns=)");
  }
  packing.positions = 1;
  packing.padding.insert(packing.padding.begin() + 1, std::array<uint8_t, 16>{});
  projection->outputs.insert(projection->outputs.begin() + 1, std::move(positions));
  return arrow::Status::OK();
}

/// Two arrays of one name: the one of a column and that of another's mask, say.
arrow::Status CheckNames(const std::vector<OutputColumn>& outputs, Layout layout) {
  std::map<std::string, std::string> owners;
  for (const OutputColumn& output : outputs) {
    if (layout == Layout::kArrow) break;
    for (const std::string& name : ArrayNames(output.field)) {
      const auto [at, is_new] = owners.emplace(name, output.field.name);
      if (is_new) continue;
      return arrow::Status::Invalid("the columns ", text::Quoted(at->second), " and ", text::Quoted(output.field.name),
                                    " both come with an array named ", text::Quoted(name),
                                    "; leave one of them out (columns=)");
    }
  }
  return arrow::Status::OK();
}

/// Outputs that need no vocabulary come first: their errors cost no reading.
arrow::Status MakeOutputs(const LoaderOptions& options, const std::vector<OutputRequest>& requests, Source& source,
                          const std::shared_ptr<arrow::MemoryPool>& pool, std::vector<OutputColumn>* outputs) {
  std::vector<std::shared_ptr<arrow::Field>> dictionary_fields;
  for (size_t i = 0; i < requests.size(); ++i) {
    OutputColumn& output = (*outputs)[i];
    if (output.identity != OutputColumn::Identity::kNone) continue;
    if (!NeedsVocabulary(requests[i], output)) {
      ARROW_RETURN_NOT_OK(MakeOutput(options, requests[i], nullptr, &output));
    } else if (std::find(dictionary_fields.begin(), dictionary_fields.end(), output.input_field) ==
               dictionary_fields.end()) {
      dictionary_fields.push_back(output.input_field);
    }
  }
  ARROW_ASSIGN_OR_RAISE(const Vocabularies vocabularies, source.ReadVocabularies(dictionary_fields, pool));
  for (size_t i = 0; i < requests.size(); ++i) {
    OutputColumn& output = (*outputs)[i];
    if (!output.field.name.empty()) continue;
    ARROW_RETURN_NOT_OK(MakeOutput(options, requests[i], vocabularies.at(output.input), &output));
  }
  return arrow::Status::OK();
}

arrow::Status AddFilter(const arrow::compute::Expression& filter, const std::string& path, int num_partitions,
                        Projection* projection) {
  std::vector<std::string> names;
  const arrow::Schema& schema = *projection->dataset_schema;
  ARROW_ASSIGN_OR_RAISE(projection->filter, BindFilter(filter, schema, path, &names));
  for (const std::string& name : names) {
    const int i = schema.GetFieldIndex(name);
    if (i < schema.num_fields() - num_partitions) projection->filter_fields.push_back(schema.field(i));
  }
  return arrow::Status::OK();
}

}  // namespace

arrow::Status CheckColumn(const arrow::Schema& schema, const std::string& input, const arrow::Field& field,
                          const char* first_input) {
  const std::vector<int> found = schema.GetAllFieldIndices(field.name());
  const std::string where = input + ": column " + text::Quoted(field.name());
  if (found.empty()) {
    const std::string nearest = text::NearMiss(field.name(), schema.field_names());
    return arrow::Status::Invalid(where, " is missing here; ", first_input, " has it, as ", field.type()->ToString(),
                                  nearest.empty() ? "" : " (there is " + text::Quoted(nearest) + " instead)",
                                  "; leave the column or the file out");
  }
  if (found.size() > 1) {
    return arrow::Status::Invalid(where, " occurs ", found.size(), " times; it cannot be told which is meant");
  }
  const arrow::DataType& type = *schema.field(found[0])->type();
  if (HaveSameValues(type, *field.type())) return arrow::Status::OK();
  return arrow::Status::Invalid(where, " is of type ", type.ToString(), " here and ", field.type()->ToString(), " in ",
                                first_input, "; write one of them again with the other's type");
}

namespace {

/// As CheckColumn, for a field of a struct; what else is in the struct may differ.
arrow::Status CheckField(const arrow::Schema& schema, const std::string& input, const OutputColumn& output,
                         const char* first_input) {
  const std::string where = input + ": column " + text::Quoted(output.path().ToString());
  if (schema.GetAllFieldIndices(output.input).size() != 1) {
    return arrow::Status::Invalid(where, " is missing here; ", first_input,
                                  " has it; leave the column or the file out");
  }
  Preparation here(schema.GetFieldByName(output.input)), first(output.input_field);
  const arrow::Status status = here.TakeField(output.fields);
  if (!status.ok()) {
    return arrow::Status::Invalid(where, " is missing here (", status.message(), "); ", first_input,
                                  " has it; leave the column or the file out");
  }
  ARROW_RETURN_NOT_OK(first.TakeField(output.fields));
  if (here.field()->type()->Equals(*first.field()->type())) return arrow::Status::OK();
  return arrow::Status::Invalid(where, " is of type ", here.field()->type()->ToString(), " here and ",
                                first.field()->type()->ToString(), " in ", first_input,
                                "; write one of them again with the other's type");
}

}  // namespace

arrow::Result<std::shared_ptr<arrow::Array>> OutputColumn::Prepare(std::shared_ptr<arrow::Array> array,
                                                                   arrow::MemoryPool* pool) const {
  ARROW_ASSIGN_OR_RAISE(array, preparation.Run(std::move(array), pool));
  return field.varying == nullptr ? std::move(array) : field.varying->Normalize(std::move(array), pool);
}

arrow::Status CheckSchema(const Projection& projection, const arrow::Schema& schema, const std::string& input) {
  for (const OutputColumn& output : projection.outputs) {
    if (!output.is_read()) continue;
    if (output.fields.empty()) {
      ARROW_RETURN_NOT_OK(CheckColumn(schema, input, *output.input_field, projection.first_input));
    } else {
      ARROW_RETURN_NOT_OK(CheckField(schema, input, output, projection.first_input));
    }
  }
  for (const auto& field : projection.filter_fields) {
    ARROW_RETURN_NOT_OK(CheckColumn(schema, input, *field, projection.first_input));
  }
  return arrow::Status::OK();
}

std::vector<std::string> NeededColumns(const Projection& projection, const std::vector<int>& outputs) {
  std::vector<std::string> names;
  const auto add = [&](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (int output : outputs) {
    const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
    if (column.is_read()) add(column.input);
  }
  for (const auto& field : projection.filter_fields) add(field->name());
  return names;
}

std::vector<ColumnPath> NeededPaths(const Projection& projection, const std::vector<int>& outputs) {
  std::vector<ColumnPath> paths;
  const auto add = [&](const ColumnPath& path) {
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
  };
  for (int output : outputs) {
    const OutputColumn& column = projection.outputs[static_cast<size_t>(output)];
    if (column.is_read()) add(column.path());
  }
  for (const auto& field : projection.filter_fields) add({field->name(), {}});
  return paths;
}

arrow::Result<Projection> MakeProjection(const LoaderOptions& options, Source& source,
                                         const std::shared_ptr<arrow::MemoryPool>& pool) {
  Projection projection;
  projection.dataset_schema = source.schema();
  if (source.num_files() == 0) projection.first_input = "the first batch";
  ARROW_ASSIGN_OR_RAISE(auto requests, RequestOutputs(options, *projection.dataset_schema));
  ARROW_RETURN_NOT_OK(FindPacking(options, requests, &projection.packing));
  for (const OutputRequest& request : requests) {
    ARROW_ASSIGN_OR_RAISE(OutputColumn output, IsIdentity(request, *projection.dataset_schema)
                                                   ? ResolveIdentity(request, source)
                                                   : ResolveInput(request, *projection.dataset_schema,
                                                                  source.num_partitions(), source.name()));
    projection.outputs.push_back(std::move(output));
  }
  ARROW_RETURN_NOT_OK(CheckFills(options.nulls, requests));
  projection.sample = options.sample;
  if (options.filter != nullptr) {
    ARROW_RETURN_NOT_OK(AddFilter(*options.filter, source.name(), source.num_partitions(), &projection));
  }
  ARROW_RETURN_NOT_OK(MakeOutputs(options, requests, source, pool, &projection.outputs));
  ARROW_RETURN_NOT_OK(MakePacking(options, requests, &projection));
  ARROW_RETURN_NOT_OK(CheckNames(projection.outputs, options.layout));
  return projection;
}

}  // namespace penstock
