// Chooses the kernel table: at first use, the best set that the processor can run, or the one CROSSENT_SIMD names; and how
// memory is fetched. Baseline code: it runs on any processor, before anything is known of it.
#include "dispatch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "api.hpp"

namespace crossent {

#if defined(__x86_64__)
namespace avx512 {
extern const KernelTable table;
}
namespace avx2 {
extern const KernelTable table;
}
#elif defined(__aarch64__)
namespace neon {
extern const KernelTable table;
}
#endif
namespace baseline {
extern const KernelTable table;
}

namespace {

struct Target {
  const KernelTable* table;
  bool (*runs_here)();
};

#if defined(__x86_64__)
// Every feature that the flags of the target enable; __builtin_cpu_supports also asks whether the system saves the registers.
bool has_f16c() {  // a name that clang 16 does not know; its registers are those of AVX
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
bool always() { return true; }

// Best first.
const Target kTargets[] = {
#if defined(__x86_64__)
    {&avx512::table, has_avx512},
    {&avx2::table, has_avx2},
#elif defined(__aarch64__)
    {&neon::table, always},
#endif
    {&baseline::table, always},
};

const KernelTable* find(const std::string& name) {
  for (const Target& target : kTargets) {
    if (name == target.table->name && target.runs_here()) return target.table;
  }
  return nullptr;
}

Status cannot_use(const std::string& name) {
  std::string choices;
  for (const std::string& choice : simd_targets()) choices += (choices.empty() ? "" : ", ") + choice;
  bool known = false;
  for (const Target& target : kTargets) known = known || name == target.table->name;
  return {Code::bad_value, "CROSSENT_SIMD: " + std::string(known ? "this machine cannot run" : "unknown instruction set") +
                               " '" + name + "'; choose one of: " + choices};
}

std::atomic<const KernelTable*>& active() {
  static std::atomic<const KernelTable*> table = [] {
    const char* name = std::getenv("CROSSENT_SIMD");
    return name && *name ? find(name) : find(simd_targets().front());
  }();
  return table;
}

// A core of an AMD processor has room for fewer lines on their way to its first-level cache than one of Intel.
bool waits_for_lines() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

std::atomic<bool>& far_fetching() {
  static std::atomic<bool> far{waits_for_lines()};
  return far;
}

}  // namespace

bool fetches_far() { return far_fetching().load(std::memory_order_relaxed); }
void set_fetches_far(bool far) { far_fetching().store(far); }

const KernelTable* active_kernels() { return active().load(std::memory_order_relaxed); }

std::string simd_target() { return active_kernels() ? active_kernels()->name : ""; }

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const Target& target : kTargets) {
    if (target.runs_here()) names.push_back(target.table->name);
  }
  return names;
}

Status select_simd(const std::string& name) {
  const KernelTable* table = find(name);
  if (!table) return cannot_use(name);
  active().store(table);
  return {};
}

Status simd_status() {
  if (active_kernels()) return {};
  const char* name = std::getenv("CROSSENT_SIMD");
  return cannot_use(name ? name : "");
}

unsigned long long kernel_runs(const std::string& name) {
  for (const Target& target : kTargets) {
    if (name == target.table->name) return __atomic_load_n(target.table->runs, __ATOMIC_RELAXED);
  }
  return 0;
}

}  // namespace crossent
