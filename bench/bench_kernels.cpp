// Microbenchmarks of the kernels, straight from the kernel tables of every instruction set that this machine can run: no
// drivers, no threads, no Python. Beside them the loops of limits.cpp, and of each kernel the share of the limit that they set.
//
// Names: <kernel>/<instruction set>/<input type>[_to_<output type>]/C=<classes>[/columns][/stream]/ws=<bytes that a pass
// touches>, <read, copy or copy_nontemporal>/<instruction set>/ws=... and exp/<instruction set>/<type>. Counters:
// bytes_per_second of the arrays read and written (each once, however often a kernel reads them); items_per_second, elements of
// the input; limit_share, the time that the limit takes divided by the time taken. All by the CPU's time, so that other
// processes disturb little.
//
// Own option: --working_sets=<bytes>,... instead of one in the caches and one that no cache holds.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "buffers.hpp"
#include "crossent/runtime.hpp"
#include "dispatch.hpp"
#include "driver.hpp"
#include "elements.hpp"
#include "machine_limits.hpp"

namespace crossent {
namespace {

constexpr std::ptrdiff_t kStreamedSet = 1 << 25;  // from here on outputs are written past the caches, too
constexpr std::ptrdiff_t kTopK = 5;               // most probable classes that scores_top5 asks for
constexpr std::ptrdiff_t kColumnClasses = 21;     // as many as a common segmentation task has

// -------------------------------------------------------------------------------------------------------------------- kernels

// The dtypes of the logits and of the output array.
struct ElementTypes {
  const char* name;
  DType in, out;
  DType compute() const { return compute_dtype(in); }
};
constexpr ElementTypes kElementTypes[] = {
    {"f32", DType::float32, DType::float32},        {"f64", DType::float64, DType::float64},
    {"f16", DType::float16, DType::float16},        {"bf16", DType::bfloat16, DType::bfloat16},
    {"f16_to_f32", DType::float16, DType::float32}, {"bf16_to_f32", DType::bfloat16, DType::float32},
};

// One kernel of a table, and the arrays that it takes.
struct Subject {
  const KernelTable* table = nullptr;
  ElementTypes types = kElementTypes[0];
  Kernel kernel = nullptr;
  CrossEntropyKernel loss_kernel = nullptr;
  ScoreKernel score_kernel = nullptr;
  DivergenceKernel divergence_kernel = nullptr;
  std::ptrdiff_t top_k = 0;                          // of score_kernel
  std::ptrdiff_t input = 0, second = 0, output = 0;  // bytes per element, 0: no such array
  int exponentials = 1;                              // of an element
  std::ptrdiff_t classes = 0, rows = 0, working_set = 0;
  bool columns = false, stream = false;

  std::ptrdiff_t element_bytes() const { return input + second + output; }
};

// Runs of rows as the drivers make them, with what belongs to each row.
class Pass {
 public:
  explicit Pass(const Subject& subject) : subject_(subject), target_(kMaxBlockRows), weight_(subject.classes * 2) {
    const std::ptrdiff_t count = subject.rows * subject.classes;
    const DType in = subject.types.in, second = subject.loss_kernel ? subject.types.compute() : in;
    run_.classes = subject.classes;
    run_.input = operand(arrays().input.fill(in, count * subject.input, false), in);
    if (subject.second) run_.second = operand(arrays().second.fill(second, count * subject.second, true), second);
    if (subject.output) run_.output = operand(arrays().output.reserve(count * subject.output), subject.types.out);
    run_.scratch = arrays().scratch.reserve(static_cast<std::ptrdiff_t>(subject.table->scratch_bytes(subject.classes)));
    run_.result = result_;
    run_.stream = subject.stream;
    run_.distant = count * subject.element_bytes() > kDistantBytes;
    run_.fetches_far = run_.distant && fetches_far();
    for (std::size_t i = 0; i < target_.size(); ++i) target_[i] = static_cast<std::int64_t>(i * 7919) % subject.classes;
    std::fill(target_weight_, target_weight_ + kMaxBlockRows + kRowPadding, 0.9);
    std::fill(gradient_scale_, gradient_scale_ + kMaxBlockRows + kRowPadding, 1.0);
    const DType weight_dtype = subject.types.compute();
    char* weight = reinterpret_cast<char*>(weight_.data());
    for (std::ptrdiff_t c = 0; c < subject.classes; ++c)
      write_floating(weight_dtype, weight + c * item_size(weight_dtype), 0.5);
    run_.target = target_.data();
    run_.target_weight = target_weight_;
    run_.gradient_scale = gradient_scale_;
    run_.class_weight = weight;
    run_.class_weight_sum = 0.5 * static_cast<double>(subject.classes);
    run_.keep = run_.mix = 0.9;
    run_.spread = 0.1 / static_cast<double>(subject.classes);
    run_.even = run_.spread / run_.keep;
  }

  void operator()() const {
    for (std::ptrdiff_t first = 0; first < subject_.rows; first += kMaxBlockRows) {
      CrossEntropyRun run = run_;
      run.rows = std::min(kMaxBlockRows, subject_.rows - first);
      for (Operand* array : {&run.input, &run.second, &run.output}) {
        if (array->data) array->data += first * array->row_stride;
      }
      if (subject_.loss_kernel) {
        subject_.loss_kernel(run);
      } else if (subject_.score_kernel) {
        score(run);
      } else if (subject_.divergence_kernel) {
        DivergenceRun divergence;
        static_cast<Run&>(divergence) = run;
        subject_.divergence_kernel(divergence);
      } else {
        subject_.kernel(run);
      }
    }
  }

 private:
  void score(const CrossEntropyRun& given) const {
    ScoreRun run;
    static_cast<Run&>(run) = given;
    run.target = given.target;
    run.max = scores_.max, run.log_sum = scores_.log_sum, run.entropy = scores_.entropy;
    run.argmax = scores_.argmax, run.rank = scores_.rank;
    run.top = scores_.top, run.top_k = subject_.top_k;
    subject_.score_kernel(run);
  }

  Operand operand(char* data, DType dtype) const {
    const std::ptrdiff_t item = item_size(dtype);
    Operand array;
    array.data = data;
    array.type = static_cast<Elements>(dtype);
    array.row_stride = subject_.columns ? item : item * subject_.classes;
    array.class_stride = subject_.columns ? item * subject_.rows : item;
    return array;
  }

  // Where scores go.
  struct Scores {
    double max[kMaxBlockRows], log_sum[kMaxBlockRows], entropy[kMaxBlockRows];
    std::int64_t argmax[kMaxBlockRows], rank[kMaxBlockRows];
    TopEntry top[kMaxBlockRows * kTopK];
  };

  const Subject& subject_;
  mutable Scores scores_;
  CrossEntropyRun run_;
  std::vector<std::int64_t> target_;
  std::vector<float> weight_;  // enough for as many float64
  double result_[kMaxBlockRows];
  double target_weight_[kMaxBlockRows + kRowPadding], gradient_scale_[kMaxBlockRows + kRowPadding];
};

// Runs the measured loop. Elements and limit_seconds: 0 where there is no such counter.
template <class Call>
void run_loop(benchmark::State& state, std::ptrdiff_t bytes, std::ptrdiff_t elements, double limit_seconds, const Call& call) {
  call();  // everything in its place
  const double start = cpu_seconds();
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  const double seconds = cpu_seconds() - start;
  const auto iterations = static_cast<std::int64_t>(state.iterations());
  state.SetBytesProcessed(iterations * bytes);
  if (elements) state.SetItemsProcessed(iterations * elements);
  if (limit_seconds > 0 && seconds > 0)
    state.counters["limit_share"] = limit_seconds * static_cast<double>(iterations) / seconds;
}

void run_kernel(benchmark::State& state, const Subject& subject) {
  const Limits& limits = measured_limits(subject.table->name, subject.working_set);
  const Pass pass(subject);
  const std::ptrdiff_t elements = subject.rows * subject.classes;
  const auto count = static_cast<double>(elements);
  // Of two inputs and an output, one input is copied to the output and the other read.
  const std::ptrdiff_t copied = subject.output ? subject.input + subject.output : 0;
  const double moving =
      count * (static_cast<double>(copied) * limits.copy + static_cast<double>(subject.element_bytes() - copied) * limits.read);
  const double exponentials = count * subject.exponentials * (subject.input == 8 ? limits.exp_f64 : limits.exp_f32);
  run_loop(state, elements * subject.element_bytes(), elements, std::max(moving, exponentials), pass);
}

// --------------------------------------------------------------------------------------------------------------- registration

std::string size_text(std::ptrdiff_t bytes) {
  for (const auto& [unit, name] : {std::pair{1 << 20, "MiB"}, std::pair{1 << 10, "KiB"}}) {
    if (bytes % unit == 0) return std::to_string(bytes / unit) + name;
  }
  return std::to_string(bytes) + "B";
}

void register_subject(Subject subject, const std::string& kernel, std::ptrdiff_t working_set) {
  subject.rows = std::max(working_set / (subject.classes * subject.element_bytes()), std::ptrdiff_t{1});
  // One row that is longer than the caches says nothing about them.
  if (subject.rows == 1 && subject.classes * subject.element_bytes() > 2 * working_set) return;
  subject.working_set = working_set;
  const std::string name = kernel + "/" + subject.table->name + "/" + subject.types.name +
                           "/C=" + std::to_string(subject.classes) + (subject.columns ? "/columns" : "") +
                           (subject.stream ? "/stream" : "") + "/ws=" + size_text(working_set);
  benchmark::RegisterBenchmark(name.c_str(), [subject](benchmark::State& state) { run_kernel(state, subject); });
}

using NamedSubjects = std::vector<std::pair<std::string, Subject>>;

void add_scores(const KernelTable& table, int compute_type, Subject s, NamedSubjects& all) {
  s.score_kernel = table.max_and_log_sum[compute_type];
  all.emplace_back("max_and_log_sum", s);
  s.score_kernel = table.scores[compute_type];
  all.emplace_back("scores", s);
  s.top_k = kTopK;
  all.emplace_back("scores_top5", s);
}

// Every kernel of a table for these element types, with its name.
NamedSubjects subjects_of(const KernelTable& table, const ElementTypes& types) {
  Subject base;
  base.table = &table;
  base.types = types;
  base.input = item_size(types.in);
  const std::ptrdiff_t out = item_size(types.out), compute = item_size(types.compute());
  const int e = static_cast<int>(types.in == DType::float64 ? ComputeType::f64 : ComputeType::f32);
  NamedSubjects all;
  const auto add = [&](const std::string& name, Kernel kernel, std::ptrdiff_t second, std::ptrdiff_t output, bool exponential) {
    Subject s = base;
    s.kernel = kernel, s.second = second, s.output = output, s.exponentials = exponential ? 1 : 0;
    all.emplace_back(name, s);
  };
  add("softmax", table.softmax[e], 0, out, true);
  add("log_softmax", table.log_softmax[e], 0, out, true);
  add("softmax_backward", table.softmax_backward[e], base.input, out, false);
  add("log_softmax_backward", table.log_softmax_backward[e], base.input, out, true);
  const bool widens = types.in != types.out;  // without an array output the same kernels as those that do not
  if (!widens) add("logsumexp", table.logsumexp[e], 0, 0, true);
  if (!widens) add_scores(table, e, base, all);
  const auto add_divergence = [&](const char* name, DivergenceKernel kernel, std::ptrdiff_t output) {
    Subject s = base;
    s.divergence_kernel = kernel, s.second = base.input, s.output = output, s.exponentials = 2;
    all.emplace_back(name, s);
  };
  if (!widens) add_divergence("kl_divergence", table.divergence[e], 0);
  add_divergence("kl_divergence_gradient", table.divergence_gradient[e], out);
  constexpr const char* kinds[kTargetKinds] = {"", "_smoothed", "_probabilities", "_weighted_probabilities"};
  for (int k = 0; k < kTargetKinds; ++k) {
    Subject s = base;
    s.second = k >= static_cast<int>(TargetKind::probabilities) ? compute : 0;
    s.loss_kernel = table.cross_entropy[e][k];
    if (!widens) all.emplace_back(std::string("cross_entropy") + kinds[k], s);
    s.loss_kernel = table.cross_entropy_gradient[e][k], s.output = out;
    all.emplace_back(std::string("cross_entropy_gradient") + kinds[k], s);
  }
  return all;
}

void register_limits(const std::string& target, const std::vector<std::ptrdiff_t>& working_sets) {
  const LimitLoops& loops = limits_of(target);
  for (const std::ptrdiff_t working_set : working_sets) {
    const std::string where = "/" + target + "/ws=" + size_text(working_set);
    const std::ptrdiff_t whole = whole_granules(working_set), half = whole_granules(working_set / 2);
    benchmark::RegisterBenchmark(("read" + where).c_str(), [&loops, whole](benchmark::State& state) {
      const char* input = arrays().input.reserve(whole);
      run_loop(state, whole, 0, 0, [&] { loops.read(input, whole); });
    });
    for (const auto& [name, copy] : {std::pair{"copy", loops.copy}, std::pair{"copy_nontemporal", loops.copy_nontemporal}}) {
      if (!copy) continue;
      benchmark::RegisterBenchmark((name + where).c_str(), [copy = copy, half](benchmark::State& state) {
        const char* input = arrays().input.reserve(half);
        char* output = arrays().output.reserve(half);
        run_loop(state, 2 * half, 0, 0, [&] { copy(input, output, half); });
      });
    }
  }
  const auto exponentials = [&](const char* type, DType dtype, auto loop, auto item) {
    using T = decltype(item);
    benchmark::RegisterBenchmark(("exp/" + target + "/" + type).c_str(), [dtype, loop](benchmark::State& state) {
      const T* x = reinterpret_cast<const T*>(arrays().input.fill(dtype, kExpBytes, false));
      T* y = reinterpret_cast<T*>(arrays().output.reserve(kExpBytes));
      constexpr std::ptrdiff_t count = kExpBytes / static_cast<std::ptrdiff_t>(sizeof(T));
      run_loop(state, 2 * kExpBytes, count, 0, [&] { loop(x, y, count); });
    });
  };
  exponentials("f32", DType::float32, loops.exp_f32, 0.0f);
  exponentials("f64", DType::float64, loops.exp_f64, 0.0);
}

void register_all(const std::vector<std::ptrdiff_t>& working_sets) {
  for (const std::string& target : simd_targets()) {
    if (!select_simd(target)) std::abort();
    const KernelTable& table = *active_kernels();
    register_limits(target, working_sets);
    for (const ElementTypes& types : kElementTypes) {
      for (auto& [name, subject] : subjects_of(table, types)) {
        for (const std::ptrdiff_t working_set : working_sets) {
          for (const std::ptrdiff_t classes : {10, 100, 1000, 50257, 262144}) {
            subject.classes = classes;
            subject.stream = false;
            register_subject(subject, name, working_set);
            subject.stream = subject.output && working_set >= kStreamedSet;
            if (subject.stream) register_subject(subject, name, working_set);
          }
          Subject columns = subject;
          columns.classes = kColumnClasses, columns.columns = true, columns.stream = false;
          if (columns.classes <= table.tile_limit) register_subject(columns, name, working_set);
        }
      }
    }
  }
}

// Half of a second-level cache, and what is twice the largest cache that the processor claims to have (up to 1 GiB).
std::vector<std::ptrdiff_t> default_working_sets() {
  std::ptrdiff_t largest = 1 << 25;
  for (const auto& cache : benchmark::CPUInfo::Get().caches) largest = std::max(largest, std::ptrdiff_t{cache.size});
  return {1 << 18, std::min(2 * largest, std::ptrdiff_t{1} << 30)};
}

}  // namespace
}  // namespace crossent

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  std::vector<std::ptrdiff_t> working_sets = crossent::default_working_sets();
  const std::string option = "--working_sets=";
  if (argc == 2 && std::string(argv[1]).rfind(option, 0) == 0) {
    working_sets.clear();
    for (const char* p = argv[1] + option.size(); *p;) {
      char* end;
      working_sets.push_back(std::strtoll(p, &end, 10));
      if (end == p || (*end && *end != ',') || working_sets.back() < crossent::kGranule) {
        std::fprintf(stderr, "%s: numbers of bytes, at least %td\n", argv[1], crossent::kGranule);
        return EXIT_FAILURE;
      }
      p = *end ? end + 1 : end;
    }
    --argc;
  }
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return EXIT_FAILURE;
  crossent::register_all(working_sets);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
