// The per-target source: compiled once for each instruction set with its flags, and CROSSENT_TARGET its name. Everything
// but the table has internal linkage (an inline function of a vector build that the linker shared with baseline code would
// crash older processors), so nothing is included here that defines functions or templates for others.
#include "kernels.hpp"

#include "simd/compiler.hpp"

#define CROSSENT_STRING_OF(name) #name
#define CROSSENT_STRING(name) CROSSENT_STRING_OF(name)

namespace crossent {
namespace CROSSENT_TARGET {
namespace {

unsigned long long kernel_runs = 0;

// clang-format off: each header uses those before it
#include "simd/vec.hpp"
#include "simd/subnormal.hpp"
#include "kernels/vectors.hpp"
#include "kernels/exp.hpp"
#include "kernels/log1p.hpp"
#include "kernels/reduce.hpp"
#include "kernels/elements.hpp"
#include "kernels/chunks.hpp"
#include "kernels/columns.hpp"
#include "kernels/columns_in_place.hpp"
#include "kernels/tile.hpp"
#include "kernels/statistics.hpp"
#include "kernels/tile_statistics.hpp"
#include "kernels/row_group.hpp"
#include "kernels/short_rows.hpp"
#include "kernels/outputs.hpp"
#include "kernels/write_tiles.hpp"
#include "kernels/turns.hpp"
#include "kernels/groups.hpp"
#include "kernels/softmax.hpp"
#include "kernels/row_pairs.hpp"
#include "kernels/backward.hpp"
#include "kernels/class_shares.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/top_k.hpp"
#include "kernels/scoring.hpp"
#include "kernels/divergence_sum.hpp"
#include "kernels/divergence.hpp"
// clang-format on

// These two are left to the compiler, which vectorizes them for each set.
bool check_targets(const int64_t* target, ptrdiff_t count, int64_t classes, int64_t ignored, ptrdiff_t* live) {
  int64_t bad = 0, kept = 0;
  for (ptrdiff_t i = 0; i < count; ++i) {
    const int64_t is_ignored = target[i] == ignored, is_class = (uint64_t)target[i] < (uint64_t)classes;
    bad |= 1 ^ (is_ignored | is_class);
    kept += 1 ^ is_ignored;
  }
  *live = kept;
  return bad == 0;
}

void copy_targets(const int64_t* target, ptrdiff_t count, int64_t classes, int64_t* copy) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    const int64_t t = target[i];
    copy[i] = (uint64_t)t < (uint64_t)classes ? t : classes - 1;
  }
}

}  // namespace

#define CROSSENT_FOR_TYPES(kernel) {process<kernel<float>>, process<kernel<double>>}
#define CROSSENT_FOR_KINDS(T, gradient)                                                                                   \
  {process<CrossEntropy<T, TargetKind::index, gradient>>, process<CrossEntropy<T, TargetKind::smoothed_index, gradient>>, \
   process<CrossEntropy<T, TargetKind::probabilities, gradient>>,                                                         \
   process<CrossEntropy<T, TargetKind::weighted_probabilities, gradient>>}

extern const KernelTable table = {
    CROSSENT_STRING(CROSSENT_TARGET),
    &kernel_runs,
    scratch_bytes,
    kBlock<float>,
    kStreams,
    CROSSENT_FOR_TYPES(Softmax),
    CROSSENT_FOR_TYPES(LogSoftmax),
    CROSSENT_FOR_TYPES(LogSumExp),
    CROSSENT_FOR_TYPES(SoftmaxBackward),
    CROSSENT_FOR_TYPES(LogSoftmaxBackward),
    {CROSSENT_FOR_KINDS(float, false), CROSSENT_FOR_KINDS(double, false)},
    {CROSSENT_FOR_KINDS(float, true), CROSSENT_FOR_KINDS(double, true)},
    CROSSENT_FOR_TYPES(MaxAndLogSum),
    CROSSENT_FOR_TYPES(Scores),
    CROSSENT_FOR_TYPES(Divergence),
    CROSSENT_FOR_TYPES(DivergenceGradient),
    check_targets,
    copy_targets,
    sum_of_rows,
};

}  // namespace CROSSENT_TARGET
}  // namespace crossent
