// Streams Parquet files in batches and counts their rows: count_rows PATH...
#include <penstock/loader.h>

#include <iostream>

arrow::Result<int64_t> CountRows(std::vector<std::string> paths) {
  penstock::LoaderOptions options;
  options.paths = std::move(paths);
  options.memory_budget_bytes = int64_t{256} << 20;
  ARROW_ASSIGN_OR_RAISE(auto loader, penstock::Loader::Make(std::move(options)));
  ARROW_RETURN_NOT_OK(loader->StartEpoch());
  for (int64_t rows = 0;;) {
    ARROW_ASSIGN_OR_RAISE(const std::optional<penstock::Batch> batch, loader->Next());
    if (!batch) return rows;
    rows += batch->num_rows();
  }
}

int main(int argc, char** argv) {
  const auto rows = CountRows({argv + 1, argv + argc});
  if (rows.ok()) {
    std::cout << *rows << " rows\n";
  } else {
    std::cerr << rows.status().message() << "\n";
  }
  return rows.ok() ? 0 : 1;
}
