// Timing of the loops of limits.cpp.
#include "machine_limits.hpp"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <map>
#include <utility>

#include "buffers.hpp"

namespace crossent {

// CROSSENT_BENCH_TARGETS, from CMake: CROSSENT_LIMITS_OF(target) for each instruction set.
#define CROSSENT_LIMITS_OF(target) \
  namespace target {               \
  extern const LimitLoops limits;  \
  }
CROSSENT_BENCH_TARGETS
#undef CROSSENT_LIMITS_OF

const LimitLoops& limits_of(const std::string& target) {
#define CROSSENT_LIMITS_OF(set) \
  if (target == #set) return set::limits;
  CROSSENT_BENCH_TARGETS
#undef CROSSENT_LIMITS_OF
  std::abort();
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

std::ptrdiff_t whole_granules(std::ptrdiff_t bytes) { return std::max(bytes / kGranule, std::ptrdiff_t{1}) * kGranule; }

namespace {

// Seconds of one call, the best of several samples.
template <class F>
double best_seconds(const F& call) {
  const auto sample = [&](long repeats) {
    const double start = cpu_seconds();
    for (long i = 0; i < repeats; ++i) call();
    return (cpu_seconds() - start) / static_cast<double>(repeats);
  };
  sample(1);
  long repeats = 1;
  while (sample(repeats) * static_cast<double>(repeats) < 1e-3) repeats *= 2;
  double best = sample(repeats);
  const int more = best > 0.02 ? 4 : 20;
  for (int i = 0; i < more; ++i) best = std::min(best, sample(repeats));
  return best;
}

}  // namespace

const Limits& measured_limits(const std::string& target, std::ptrdiff_t working_set) {
  static std::map<std::pair<std::string, std::ptrdiff_t>, Limits> known;
  const auto [place, is_new] = known.try_emplace({target, working_set});
  Limits& limits = place->second;
  if (!is_new) return limits;
  const LimitLoops& loops = limits_of(target);
  const std::ptrdiff_t whole = whole_granules(working_set), half = whole_granules(working_set / 2);
  const char* input = arrays().input.reserve(whole);
  char* output = arrays().output.reserve(std::max(half, kExpBytes));
  limits.read = best_seconds([&] { loops.read(input, whole); }) / static_cast<double>(whole);
  double copy = best_seconds([&] { loops.copy(input, output, half); });
  if (loops.copy_nontemporal) copy = std::min(copy, best_seconds([&] { loops.copy_nontemporal(input, output, half); }));
  limits.copy = copy / static_cast<double>(2 * half);
  const auto exponentials = [&](auto loop, auto* y) {
    const DType dtype = sizeof *y == 8 ? DType::float64 : DType::float32;
    const auto* x = reinterpret_cast<decltype(y)>(arrays().input.fill(dtype, kExpBytes, false));
    const std::ptrdiff_t count = kExpBytes / static_cast<std::ptrdiff_t>(sizeof *y);
    return best_seconds([&] { loop(x, y, count); }) / static_cast<double>(count);
  };
  limits.exp_f32 = exponentials(loops.exp_f32, reinterpret_cast<float*>(output));
  limits.exp_f64 = exponentials(loops.exp_f64, reinterpret_cast<double*>(output));
  return limits;
}

}  // namespace crossent
