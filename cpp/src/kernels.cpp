// The per-target source: compiled once for each instruction set with its flags, and CROSSENT_TARGET its name. Everything
// but the table has internal linkage (an inline function of a vector build that the linker shared with baseline code would
// crash older processors), so nothing is included here that defines functions or templates for others.
#include "kernels.hpp"

#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define CROSSENT_INLINE inline __attribute__((always_inline))
// For what many kernels share: inlined everywhere, a target would take minutes to compile and megabytes to ship.
#define CROSSENT_SHARED __attribute__((noinline))
#define CROSSENT_LAMBDA __attribute__((always_inline))
#define CROSSENT_STRING_OF(name) #name
#define CROSSENT_STRING(name) CROSSENT_STRING_OF(name)

namespace crossent {
namespace CROSSENT_TARGET {
namespace {

unsigned long long kernel_runs = 0;

// clang-format off: each header uses those before it
#include "simd/vec.hpp"
#include "kernels/exp.hpp"
#include "kernels/log1p.hpp"
#include "kernels/reduce.hpp"
#include "kernels/tile.hpp"
#include "kernels/statistics.hpp"
#include "kernels/groups.hpp"
#include "kernels/softmax.hpp"
#include "kernels/backward.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/top_k.hpp"
#include "kernels/scoring.hpp"
#include "kernels/divergence.hpp"
// clang-format on

void to_float(Elements from, const char* source, ptrdiff_t count, float* target) {
  if (from == Elements::f16) convert_to_compute((const Half*)source, count, target);
  if (from == Elements::bf16) convert_to_compute((const BFloat16*)source, count, target);
}

template <class S>
void logsumexp(const Run& run) {
  process<LogSumExp<S>>(run);
}

}  // namespace

#define CROSSENT_FOR_ELEMENTS(kernel)                                                                 \
  {process<kernel<float, float>>,       process<kernel<double, double>>, process<kernel<Half, Half>>, \
   process<kernel<BFloat16, BFloat16>>, process<kernel<Half, float>>,    process<kernel<BFloat16, float>>}
#define CROSSENT_FOR_INPUTS(kernel) \
  {process<kernel<float>>, process<kernel<double>>, process<kernel<Half>>, process<kernel<BFloat16>>}
#define CROSSENT_FOR_KINDS(S, O, gradient)                            \
  {process<CrossEntropy<S, O, TargetKind::index, gradient>>,          \
   process<CrossEntropy<S, O, TargetKind::smoothed_index, gradient>>, \
   process<CrossEntropy<S, O, TargetKind::probabilities, gradient>>,  \
   process<CrossEntropy<S, O, TargetKind::weighted_probabilities, gradient>>}

extern const KernelTable table = {
    CROSSENT_STRING(CROSSENT_TARGET),
    &kernel_runs,
    scratch_bytes,
    {RowSum<float>::kBlock, RowSum<float>::kBlock, RowSum<float>::kBlock, RowSum<float>::kBlock, RowSum<float>::kBlock,
     RowSum<float>::kBlock},
    CROSSENT_FOR_ELEMENTS(Softmax),
    CROSSENT_FOR_ELEMENTS(LogSoftmax),
    {logsumexp<float>, logsumexp<double>, logsumexp<Half>, logsumexp<BFloat16>, logsumexp<Half>, logsumexp<BFloat16>},
    CROSSENT_FOR_ELEMENTS(SoftmaxBackward),
    CROSSENT_FOR_ELEMENTS(LogSoftmaxBackward),
    {CROSSENT_FOR_KINDS(float, float, false), CROSSENT_FOR_KINDS(double, double, false), CROSSENT_FOR_KINDS(Half, float, false),
     CROSSENT_FOR_KINDS(BFloat16, float, false), CROSSENT_FOR_KINDS(Half, float, false),
     CROSSENT_FOR_KINDS(BFloat16, float, false)},
    {CROSSENT_FOR_KINDS(float, float, true), CROSSENT_FOR_KINDS(double, double, true), CROSSENT_FOR_KINDS(Half, Half, true),
     CROSSENT_FOR_KINDS(BFloat16, BFloat16, true), CROSSENT_FOR_KINDS(Half, float, true),
     CROSSENT_FOR_KINDS(BFloat16, float, true)},
    CROSSENT_FOR_INPUTS(MaxAndLogSum),
    CROSSENT_FOR_INPUTS(Scores),
    CROSSENT_FOR_INPUTS(Divergence),
    CROSSENT_FOR_ELEMENTS(DivergenceGradient),
    to_float,
};

}  // namespace CROSSENT_TARGET
}  // namespace crossent
