#include "source/projection.h"

#include <arrow/array/builder_binary.h>
#include <arrow/type.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "batch/varying_column.h"
#include "source/prune.h"
#include "source/source.h"
#include "source/text.h"

namespace penstock {
namespace {

/// One output before it is resolved: its name, its source column and what is done on the way.
struct OutputRequest {
  std::string name;
  std::string input;
  const std::vector<Op>* ops = nullptr;
};

const std::vector<Op> kNoOps;

/// The outputs in their order: see MakeProjection.
arrow::Result<std::vector<OutputRequest>> RequestOutputs(const LoaderOptions& options, const arrow::Schema& schema) {
  std::map<std::string, const Transform*> transforms;
  for (const Transform& transform : options.transforms) {
    if (!transforms.emplace(transform.output, &transform).second) {
      return arrow::Status::Invalid("transforms: the output ", text::Quoted(transform.output), " is given twice");
    }
  }
  std::vector<OutputRequest> requests;
  std::set<std::string> names;
  for (const std::string& name : options.columns ? *options.columns : schema.field_names()) {
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

arrow::Result<OutputColumn> ResolveInput(const OutputRequest& request, const arrow::Schema& schema, int num_partitions,
                                         const std::string& path) {
  const std::vector<int> found = schema.GetAllFieldIndices(request.input);
  const std::string unknown = found.empty() ? text::UnknownColumn(request.input, path, schema.field_names()) : "";
  if (found.empty() && request.input == request.name) return arrow::Status::Invalid(unknown);
  if (found.empty()) return arrow::Status::Invalid("the input of ", text::Quoted(request.name), ": ", unknown);
  if (found.size() > 1) {
    return arrow::Status::Invalid("column ", text::Quoted(request.input), " occurs ", found.size(), " times in ",
                                  text::Quoted(path), "; it cannot be told which is meant");
  }
  OutputColumn output;
  output.input = request.input;
  output.input_field = schema.field(found[0]);
  output.partition_index = std::max(-1, found[0] - (schema.num_fields() - num_partitions));
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
  return output.input_field->type()->id() == arrow::Type::DICTIONARY &&
         std::none_of(request.ops->begin(), request.ops->end(), IsConsumer);
}

arrow::Status MakeConverter(const LoaderOptions& options, const OutputRequest& request,
                            std::shared_ptr<arrow::Array> vocabulary, OutputColumn* output) {
  const auto made = Converter::Make(request.name, *output->input_field, *request.ops, options.nulls, options.layout,
                                    std::move(vocabulary));
  if (made.ok()) {
    output->converter = *made;
    output->field = output->converter->field();
    return arrow::Status::OK();
  }
  // What has no fixed size has no converter.
  if (!made.status().IsTypeError() || !request.ops->empty() || output->partition_index >= 0 ||
      options.layout != Layout::kArrow) {
    return made.status();
  }
  const auto varying = VaryingColumn::Make(*output->input_field);
  if (!varying.ok()) return made.status();
  output->field.name = request.name;
  output->field.source_type = output->input_field->type();
  output->field.arrow_type = (*varying)->type();
  output->field.varying = *varying;
  return arrow::Status::OK();
}

/// Converters that need no vocabulary come first: their errors cost no reading.
arrow::Status MakeConverters(const LoaderOptions& options, const std::vector<OutputRequest>& requests, Source& source,
                             arrow::MemoryPool* pool, std::vector<OutputColumn>* outputs) {
  std::vector<std::shared_ptr<arrow::Field>> dictionary_fields;
  for (size_t i = 0; i < requests.size(); ++i) {
    OutputColumn& output = (*outputs)[i];
    if (output.identity != OutputColumn::Identity::kNone) continue;
    if (!NeedsVocabulary(requests[i], output)) {
      ARROW_RETURN_NOT_OK(MakeConverter(options, requests[i], nullptr, &output));
    } else if (std::find(dictionary_fields.begin(), dictionary_fields.end(), output.input_field) ==
               dictionary_fields.end()) {
      dictionary_fields.push_back(output.input_field);
    }
  }
  ARROW_ASSIGN_OR_RAISE(const Vocabularies vocabularies, source.ReadVocabularies(dictionary_fields, pool));
  for (size_t i = 0; i < requests.size(); ++i) {
    OutputColumn& output = (*outputs)[i];
    if (!output.field.name.empty()) continue;
    ARROW_RETURN_NOT_OK(MakeConverter(options, requests[i], vocabularies.at(output.input), &output));
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

arrow::Status CheckColumn(const arrow::Schema& schema, const std::string& input, const arrow::Field& field) {
  const std::vector<int> found = schema.GetAllFieldIndices(field.name());
  const std::string where = input + ": column " + text::Quoted(field.name());
  if (found.empty()) {
    const std::string nearest = text::NearMiss(field.name(), schema.field_names());
    return arrow::Status::Invalid(where, " is missing here; the first file has it, as ", field.type()->ToString(),
                                  nearest.empty() ? "" : " (there is " + text::Quoted(nearest) + " instead)",
                                  "; leave the column or the file out");
  }
  if (found.size() > 1) {
    return arrow::Status::Invalid(where, " occurs ", found.size(), " times; it cannot be told which is meant");
  }
  const arrow::DataType& type = *schema.field(found[0])->type();
  if (type.Equals(*field.type())) return arrow::Status::OK();
  return arrow::Status::Invalid(where, " is of type ", type.ToString(), " here and ", field.type()->ToString(),
                                " in the first file; write one of them again with the other's type");
}

arrow::Status CheckSchema(const Projection& projection, const arrow::Schema& schema, const std::string& input) {
  for (const OutputColumn& output : projection.outputs) {
    if (output.is_read()) ARROW_RETURN_NOT_OK(CheckColumn(schema, input, *output.input_field));
  }
  for (const auto& field : projection.filter_fields) ARROW_RETURN_NOT_OK(CheckColumn(schema, input, *field));
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

arrow::Result<Projection> MakeProjection(const LoaderOptions& options, Source& source, arrow::MemoryPool* pool) {
  Projection projection;
  projection.dataset_schema = source.schema();
  ARROW_ASSIGN_OR_RAISE(auto requests, RequestOutputs(options, *projection.dataset_schema));
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
  ARROW_RETURN_NOT_OK(MakeConverters(options, requests, source, pool, &projection.outputs));
  return projection;
}

}  // namespace penstock
