#pragma once

#include "penstock/stats.h"
#include "pipeline/budget.h"
#include "pipeline/survey.h"

namespace penstock {

/// What an epoch will read and take. How many rows and batches it has is left to who knows.
/// \param survey  of all inputs.
Explanation ExplainDivision(const BudgetTerms& terms, const BudgetDivision& division, const Survey& survey);

}  // namespace penstock
