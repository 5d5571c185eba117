#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <string>

#include "ops/preparation.h"
#include "penstock/options.h"
#include "penstock/schema.h"

namespace penstock {

/// True where the rows of a column (in a batch of tensors) have no fixed size, or no number form.
bool IsVarying(const arrow::Field& field);

/// True where a column of a record batch is more than a Converter can carry: it varies in size, is of an extension
/// type, or its fixed-size lists may be missing as a whole.
bool NeedsArray(const arrow::Field& field);

/// What such a column comes out as, by the null policy (but for its `fill`); Field::source_type is the caller's to set.
/// \return TypeError where it has no form in this layout, naming the remedy.
arrow::Result<Field> VaryingField(const std::string& name, const Preparation& preparation, Layout layout,
                                  const NullPolicy& nulls);

}  // namespace penstock
