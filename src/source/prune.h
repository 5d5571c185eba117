#pragma once

#include <arrow/compute/expression.h>
#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <memory>
#include <string>
#include <vector>

namespace penstock {

/// Checks a filter and binds it to `schema`; sets `*names` to the columns that it refers to, each once, in the schema's
/// order.
///
/// \param path  of the first file, for messages.
/// \return Invalid for unknown, ambiguous and nested columns, for what is not a boolean, for types that do not compare.
arrow::Result<std::shared_ptr<const arrow::compute::Expression>> BindFilter(const arrow::compute::Expression& filter,
                                                                            const arrow::Schema& schema,
                                                                            const std::string& path,
                                                                            std::vector<std::string>* names);

}  // namespace penstock
