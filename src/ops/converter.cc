#include "ops/converter.h"

#include <utility>

#include "ops/compiled_converter.h"

namespace penstock {

arrow::Result<std::shared_ptr<const Converter>> Converter::Make(const std::string& field_name,
                                                                const arrow::Field& input, const std::vector<Op>& ops,
                                                                const NullPolicy& nulls, Layout layout,
                                                                std::shared_ptr<arrow::Array> vocabulary) {
  const auto fill = nulls.fill.find(field_name);
  auto made = MakeChain(input, ops, fill == nulls.fill.end() ? nullptr : &fill->second, layout, std::move(vocabulary));
  if (!made.ok()) return made.status().WithMessage("column '", field_name, "': ", made.status().message());
  Chain chain = std::move(made).ValueUnsafe();
  Field field;
  field.name = field_name;
  field.dtype = chain.dtype;
  field.shape = chain.shape;
  field.source_type = input.type();
  field.arrow_type = chain.arrow_type;
  field.vocabulary = chain.vocabulary;
  switch (chain.intake.kind) {
    case Intake::Kind::kElements:
      break;
    case Intake::Kind::kListItems:
      return MakeListItemsConverter(std::move(field), std::move(chain), nulls, layout);
    case Intake::Kind::kListLengths:
      return MakeListLengthConverter(std::move(field), std::move(chain), nulls, layout);
    case Intake::Kind::kCustom:
      return MakeCustomConverter(std::move(field), std::move(chain), nulls, layout);
  }
  return std::make_shared<const CompiledConverter>(std::move(field), std::move(chain), nulls, layout);
}

}  // namespace penstock
