// Loads the op and counts the letters in a column of strings: count_letters OP.so COLUMN PATH...
#include <penstock/custom_op.h>
#include <penstock/loader.h>

#include <iostream>
#include <numeric>

arrow::Result<int64_t> CountLetters(const std::string& op_path, const std::string& column,
                                    std::vector<std::string> paths) {
  ARROW_ASSIGN_OR_RAISE(auto op, penstock::LoadCustomOp(op_path, "letter_counts", {{"ignore_case", "true"}}));
  penstock::LoaderOptions options;
  options.paths = std::move(paths);
  options.columns = std::vector<std::string>{};
  options.transforms.push_back({"counts", column, {penstock::ops::Custom{std::move(op)}}});
  ARROW_ASSIGN_OR_RAISE(auto loader, penstock::Loader::Make(std::move(options)));
  ARROW_RETURN_NOT_OK(loader->StartEpoch());
  for (int64_t letters = 0;;) {
    ARROW_ASSIGN_OR_RAISE(const std::optional<penstock::Batch> batch, loader->Next());
    if (!batch) return letters;
    const auto* counts = reinterpret_cast<const int32_t*>(batch->column(0).values);
    letters = std::accumulate(counts, counts + 26 * batch->num_rows(), letters);
  }
}

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: count_letters OP.so COLUMN PATH...\n";
    return 2;
  }
  const auto letters = CountLetters(argv[1], argv[2], {argv + 3, argv + argc});
  if (letters.ok()) {
    std::cout << *letters << " letters\n";
  } else {
    std::cerr << letters.status().message() << "\n";
  }
  return letters.ok() ? 0 : 1;
}
