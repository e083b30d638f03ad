// Every function on every instruction set and dtype, for rows of 1 class to several vectors and a tail, against long double
// and between guard pages. Plain: no test framework.
//
//   kernels_test                  tests every instruction set of the machine
//   kernels_test --simd NAME      that one alone
//   kernels_test --sample         a third of the sizes, for emulators
//   kernels_test --no-guards      without guard pages
//   kernels_test --hashes         prints `function dtype hash` for fixed inputs: the lines of hashes/fma.txt or baseline.txt
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "problem.hpp"

namespace crossent_test {
namespace {

// Four vectors of 16 and a tail; and as much again where rows are long enough not to be transposed into tiles.
constexpr std::ptrdiff_t kFourVectors = 4 * 16 + 3, kLongRow = 193;
constexpr int kFailuresShown = 20;

struct Count {
  long passed = 0, failed = 0;
  void add(const std::string& name, const std::string& error) {
    ++(error.empty() ? passed : failed);
    if (!error.empty() && failed <= kFailuresShown) std::printf("FAILED %s: %s\n", name.c_str(), error.c_str());
  }
};

// `right` are results that have passed already.
void check_layout(const Function& function, const Elements& elements, const Inputs& inputs, Layout layout, const Answers& exact,
                  Results& right, const std::string& name, Count& count) {
  std::string error;
  const Results first = call(function, elements, inputs, layout, Place::at_end, error);
  if (error.empty() && !(first == right)) {
    error = first_error(first, exact, elements, inputs.size());
    if (error.empty()) right = first;
  }
  count.add(name, error);
  error.clear();
  const Results second = call(function, elements, inputs, layout, Place::at_start, error);
  if (error.empty() && !(first == second)) error = "other bits at another address";
  count.add(name, error);
}

void check_size(const Elements& elements, Size size, const std::vector<std::string>& targets, Count& count) {
  const Inputs inputs(elements.in, size);
  const ExactRows rows(inputs);
  for (const Function& function : functions()) {
    if (!computes(function, elements)) continue;
    const Answers exact = answers(function, elements, rows);
    Results right;
    for (const std::string& target : targets) {
      const Status selected = crossent::select_simd(target);
      for (Layout layout : kLayouts) {
        const std::string name = std::string(function.name) + " " + target + " " + elements.name() + " (" +
                                 std::to_string(size.rows) + ", " + std::to_string(size.classes) + ") in " +
                                 layout_name(layout);
        begin_case(name);
        if (!selected) count.add(name, selected.message);
        check_layout(function, elements, inputs, layout, exact, right, name, count);
      }
    }
  }
}

// Groups of rows that end somewhere within a vector; of long rows mostly few, to save time under emulators.
std::ptrdiff_t several_rows(std::ptrdiff_t classes) {
  return classes <= kFourVectors || classes % 8 == 0 ? 2 + classes * 7 % 19 : 3;
}

// Of either range of sizes all up to a vector and a bit, so that every tail is there, and few beyond.
bool in_sample(std::ptrdiff_t step) {
  const std::ptrdiff_t within = step <= kFourVectors ? step : step - kFourVectors;
  return within <= 17 || within % 10 == 7;
}

int test(const std::vector<std::string>& targets, bool sample) {
  Count count;
  std::vector<unsigned long long> runs;
  for (const std::string& target : targets) runs.push_back(crossent::kernel_runs(target));
  for (const Elements& elements : all_elements()) {
    for (std::ptrdiff_t step = 1; step <= 2 * kFourVectors; ++step) {
      if (sample && !in_sample(step)) continue;
      const std::ptrdiff_t classes = step <= kFourVectors ? step : kLongRow + (step - kFourVectors - 1);
      check_size(elements, {1, classes}, targets, count);
      check_size(elements, {several_rows(classes), classes}, targets, count);
    }
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const bool ran = crossent::kernel_runs(targets[i]) > runs[i];
    count.add(targets[i], ran ? "" : "its kernels did not run");
    std::printf("%s: %llu kernel calls\n", targets[i].c_str(), crossent::kernel_runs(targets[i]) - runs[i]);
  }
  std::printf("%ld passed, %ld failed\n", count.passed, count.failed);
  return count.failed ? 1 : 0;
}

// FNV-1a
std::uint64_t add_to_hash(std::uint64_t hash, const std::vector<unsigned char>& bytes) {
  for (unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
  return hash;
}

int print_hashes(const std::string& target) {
  if (const Status selected = crossent::select_simd(target); !selected) {
    std::fprintf(stderr, "%s\n", selected.message.c_str());
    return 2;
  }
  // The last two are longer than what is summed up without a pause, in float32 and in float64.
  const Size sizes[] = {{1, 1},   {5, 2},    {18, 3},  {17, 7},  {9, 16},   {17, 48},  {7, 49},   {3, 112},
                        {3, 115}, {20, 160}, {5, 191}, {3, 193}, {1, 1000}, {1, 4099}, {1, 32771}};
  for (const Function& function : functions()) {
    for (const Elements& elements : all_elements()) {
      if (!computes(function, elements)) continue;
      std::uint64_t hash = 0xcbf29ce484222325u;
      for (Size size : sizes) {
        if (size.classes > 32768 && elements.in != DType::float64) continue;
        const Inputs inputs(elements.in, size);
        for (Layout layout : {Layout::rows, Layout::columns}) {
          std::string error;
          const Results results = call(function, elements, inputs, layout, Place::at_end, error);
          if (!error.empty()) {
            std::fprintf(stderr, "%s: %s\n", function.name, error.c_str());
            return 2;
          }
          hash = add_to_hash(add_to_hash(hash, results.out), results.per_row);
        }
      }
      std::printf("%s %s %016" PRIx64 "\n", function.name, elements.name().c_str(), hash);
    }
  }
  return 0;
}

int usage() {
  std::fputs("usage: kernels_test [--hashes] [--sample] [--no-guards] [--simd NAME]\n", stderr);
  return 2;
}

}  // namespace
}  // namespace crossent_test

int main(int argc, char** argv) {
  using namespace crossent_test;
  bool hashes = false, sample = false;
  std::string chosen;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--hashes") == 0) {
      hashes = true;
    } else if (std::strcmp(argv[i], "--sample") == 0) {
      sample = true;
    } else if (std::strcmp(argv[i], "--no-guards") == 0) {
      guard_pages = false;
    } else if (std::strcmp(argv[i], "--simd") == 0 && i + 1 < argc) {
      chosen = argv[++i];
    } else {
      return usage();
    }
  }
  catch_faults();
  if (hashes) return print_hashes(chosen.empty() ? crossent::simd_target() : chosen);
  return test(chosen.empty() ? crossent::simd_targets() : std::vector<std::string>{chosen}, sample);
}
