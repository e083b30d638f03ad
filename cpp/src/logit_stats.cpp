// Drivers of logit_stats and of evaluate, which adds up what the same kernel tells.
#include <algorithm>
#include <mutex>

#include "api.hpp"
#include "dispatch.hpp"
#include "driver.hpp"
#include "elements.hpp"
#include "exact_sum.hpp"
#include "parallel.hpp"
#include "scores.hpp"

namespace crossent {
namespace {

// What the kernel tells of a block of rows.
struct BlockScores {
  std::ptrdiff_t first = 0, count = 0;
  double max[kMaxBlockRows], log_sum[kMaxBlockRows], entropy[kMaxBlockRows], target_log_prob[kMaxBlockRows];
  std::int64_t argmax[kMaxBlockRows], rank[kMaxBlockRows], target[kMaxBlockRows];
  TopEntry* top = nullptr;
};

class ScoresCall {
 public:
  ScoresCall(const ConstArray& logits, const ScoredLogits& rows, const ConstArray* target, const IndexRange& range,
             std::ptrdiff_t top_k)
      : range_(range), top_k_(top_k), space_(logits.ndim, logits.shape, rows.axes) {
    operands_.input = space_.add_class_shaped(logits.data, logits.dtype, logits.strides);
    if (target) target_ = space_.add_row_shaped(target->data, target->dtype, target->strides);
  }

  RowSpace& space() { return space_; }

  // Calls consume(scores, share) for each block and finish(share) at last, where share = start(memory) belongs to one thread.
  // It gets `share_bytes` of memory, since it must not allocate any: no exception may leave a thread.
  template <class Start, class Consume, class Finish>
  Status run(const KernelTable& kernels, std::size_t share_bytes, Start start, Consume consume, Finish finish) const {
    const RowFeeder feeder(kernels, space_, operands_);
    const ScoreKernel kernel = kernels.scores[compute_type(space_.dtype(operands_.input))];
    const std::ptrdiff_t most_rows = std::min(feeder.block_rows(), space_.rows());
    const std::size_t top_bytes = static_cast<std::size_t>(most_rows * top_k_) * sizeof(TopEntry);
    const auto handle = [&](std::ptrdiff_t begin, std::ptrdiff_t end, char* scratch) {
      char* top = scratch + feeder.scratch_bytes();
      auto share = start(top + top_bytes);
      BlockScores scores;
      scores.top = reinterpret_cast<TopEntry*>(top);
      for (std::ptrdiff_t block = begin; block < end; ++block) {
        score_block(feeder, kernel, block, scratch, scores);
        consume(static_cast<const BlockScores&>(scores), share);
      }
      finish(share);
    };
    const bool done = for_each_block_range(threads_for(space_.rows(), space_.classes()), feeder.blocks(),
                                           feeder.scratch_bytes() + top_bytes + share_bytes, handle);
    return done ? Status() : out_of_memory();
  }

 private:
  void score_block(const RowFeeder& feeder, ScoreKernel kernel, std::ptrdiff_t block, char* scratch, BlockScores& s) const {
    s.first = block * feeder.block_rows();
    s.count = std::min(feeder.block_rows(), space_.rows() - s.first);
    if (target_ >= 0) read_targets(s);
    feeder.feed(block, scratch, [&](const Run& rows, std::ptrdiff_t done) {
      ScoreRun run;
      static_cast<Run&>(run) = rows;
      run.max = s.max + done;
      run.log_sum = s.log_sum + done;
      run.entropy = s.entropy + done;
      run.argmax = s.argmax + done;
      run.top = s.top + done * top_k_;
      run.top_k = top_k_;
      if (target_ >= 0) {
        run.target = s.target + done;
        run.rank = s.rank + done;
      }
      kernel(run);
    });
    if (target_ >= 0) score_targets(s);
  }

  void read_targets(BlockScores& s) const {
    for (std::ptrdiff_t done = 0; done < s.count;) {
      const std::ptrdiff_t run = space_.run_length(s.first + done, s.count - done);
      const Operand at = space_.rows_at(target_, s.first + done);
      reread_indices(space_.dtype(target_), at.data, at.row_stride, run, range_, s.target + done);
      done += run;
    }
  }

  void score_targets(BlockScores& s) const {
    with_reader(space_.dtype(operands_.input), [&](auto read) {
      for (std::ptrdiff_t done = 0; done < s.count;) {
        const std::ptrdiff_t run = space_.run_length(s.first + done, s.count - done);
        const Operand logits = space_.rows_at(operands_.input, s.first + done);
        for (std::ptrdiff_t i = 0; i < run; ++i) {
          const std::ptrdiff_t row = done + i;
          if (s.target[row] < 0) continue;
          const char* p = logits.data + i * logits.row_stride + s.target[row] * logits.class_stride;
          s.target_log_prob[row] = log_probability(s.max[row], s.log_sum[row], read(p));
        }
        done += run;
      }
    });
  }

  IndexRange range_;
  std::ptrdiff_t top_k_;
  RowSpace space_;
  KernelOperands operands_;
  int target_ = -1;
};

Status check_target(const ConstArray& logits, const ScoredLogits& rows, const ConstArray& target, const IndexRange& range) {
  if (is_floating(target.dtype)) {
    return {Code::bad_type, "target must hold class indices of an integer dtype, not " + dtype_name(target.dtype)};
  }
  if (!rows.has_row_shape(target)) {
    return {Code::bad_value, "target has shape " + shape_text(target.ndim, target.shape) + ", but " +
                                 logits_text("logits", logits, rows.axis) + ", which needs shape " +
                                 shape_text(rows.row_ndim, rows.row_shape)};
  }
  return check_indices("target", target, range);
}

// The address of the first row in an array that is not there: a byte a row, so that addresses tell positions.
char kPositionZero;

// Numbers of the result's type T at the rows' places in dense arrays; those that are null are left out.
template <class T>
class DenseWriter {
 public:
  DenseWriter(const RowSpace& space, int positions, const LogitStats& stats, bool has_target, std::ptrdiff_t top_k)
      : space_(space), positions_(positions), stats_(stats), has_target_(has_target), top_k_(top_k) {}

  void write(const BlockScores& s) const {
    for (std::ptrdiff_t done = 0; done < s.count;) {
      const std::ptrdiff_t run = space_.run_length(s.first + done, s.count - done);
      const Operand at = space_.rows_at(positions_, s.first + done);
      const std::ptrdiff_t first = at.data - &kPositionZero;
      for (std::ptrdiff_t i = 0; i < run; ++i) write_row(s, done + i, first + i * at.row_stride);
      done += run;
    }
  }

 private:
  static void put(void* array, std::ptrdiff_t position, double value) {
    if (array) static_cast<T*>(array)[position] = static_cast<T>(value);
  }
  static void put(std::int64_t* array, std::ptrdiff_t position, std::int64_t value) {
    if (array) array[position] = value;
  }
  void write_row(const BlockScores& s, std::ptrdiff_t row, std::ptrdiff_t to) const {
    put(stats_.max, to, s.max[row]);
    put(stats_.log_sum, to, s.log_sum[row]);
    put(stats_.entropy, to, s.entropy[row]);
    put(stats_.argmax, to, s.argmax[row]);
    if (has_target_) {
      put(stats_.target_log_prob, to, s.target_log_prob[row]);
      put(stats_.target_rank, to, s.rank[row]);
    }
    for (std::ptrdiff_t k = 0; k < top_k_; ++k) {
      const TopEntry& entry = s.top[row * top_k_ + k];
      put(stats_.top_indices, to * top_k_ + k, entry.index);
      put(stats_.top_log_probs, to * top_k_ + k, log_probability(s.max[row], s.log_sum[row], entry.value));
    }
  }

  const RowSpace& space_;
  int positions_;
  const LogitStats& stats_;
  bool has_target_;
  std::ptrdiff_t top_k_;
};

template <class T>
Status write_stats(const ScoresCall& call, const KernelTable& kernels, const DenseWriter<T>& writer) {
  const auto consume = [&](const BlockScores& scores, int) { writer.write(scores); };
  return call.run(kernels, 0, [](char*) { return 0; }, consume, [](int) {});
}

}  // namespace

Status logit_stats(const ConstArray& logits, const ConstArray* target, int axis, std::int64_t top_k, const LogitStats& stats) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ScoredLogits rows;
  if (Status s = rows.check("logits", logits, axis); !s) return s;
  const IndexRange range{rows.classes, false, 0};
  if (target) {
    if (Status s = check_target(logits, rows, *target, range); !s) return s;
  }
  if (top_k < 0 || top_k > rows.classes) {
    return {Code::bad_value, "top_k must be between 0 and the number of classes, " + std::to_string(rows.classes) + ", not " +
                                 std::to_string(top_k)};
  }
  // The rows' numbers in C order.
  std::ptrdiff_t strides[kMaxDims], number = 1;
  for (int d = rows.row_ndim - 1; d >= 0; --d) {
    strides[d] = number;
    number *= rows.row_shape[d];
  }
  if (number == 0) return {};
  ScoresCall call(logits, rows, target, range, top_k);
  const int positions = call.space().add_row_shaped(&kPositionZero, DType::uint8, strides);
  call.space().finish();
  if (compute_dtype(logits.dtype) == DType::float64) {
    return write_stats(call, *kernels, DenseWriter<double>(call.space(), positions, stats, target != nullptr, top_k));
  }
  return write_stats(call, *kernels, DenseWriter<float>(call.space(), positions, stats, target != nullptr, top_k));
}

namespace {

static_assert(kLossScale == ExactSum::kOffset, "the public scale is that of the digits");

// What one thread has added up.
struct Sums {
  explicit Sums(std::int64_t* memory) : hits(memory) {}

  std::int64_t* hits;  // for each k
  std::int64_t count = 0;
  ExactSum loss;
};

}  // namespace

Status evaluate(const ConstArray& logits, const ConstArray& target, int axis, std::int64_t ignore_index,
                const std::vector<std::int64_t>& top_k, Evaluation& evaluation) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return simd_status();
  ScoredLogits rows;
  if (Status s = rows.check("logits", logits, axis); !s) return s;
  const IndexRange range{rows.classes, true, ignore_index};
  if (Status s = check_target(logits, rows, target, range); !s) return s;
  std::vector<std::int64_t> hits(top_k.size());
  Sums all(hits.data());
  ScoresCall call(logits, rows, &target, range, 0);
  call.space().finish();
  std::mutex mutex;
  const auto consume = [&](const BlockScores& scores, Sums& sums) {
    for (std::ptrdiff_t row = 0; row < scores.count; ++row) {
      if (scores.target[row] < 0) continue;
      ++sums.count;
      sums.loss.add(-scores.target_log_prob[row]);
      for (std::size_t i = 0; i < top_k.size(); ++i) sums.hits[i] += scores.rank[row] < top_k[i];
    }
  };
  const auto finish = [&](const Sums& sums) {
    const std::lock_guard<std::mutex> lock(mutex);
    all.count += sums.count;
    all.loss.add(sums.loss);
    for (std::size_t i = 0; i < top_k.size(); ++i) all.hits[i] += sums.hits[i];
  };
  const auto start = [&](char* memory) {
    Sums sums(reinterpret_cast<std::int64_t*>(memory));
    std::fill_n(sums.hits, top_k.size(), 0);
    return sums;
  };
  if (call.space().rows() > 0) {
    const std::size_t bytes = top_k.size() * sizeof(std::int64_t);
    if (Status s = call.run(*kernels, bytes, start, consume, finish); !s) return s;
  }
  evaluation.count = all.count;
  evaluation.hits = hits;
  evaluation.loss = all.loss.value();
  evaluation.loss_digits = all.loss.digits();
  evaluation.loss_special = all.loss.special();
  return {};
}

}  // namespace crossent
