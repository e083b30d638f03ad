// Long rows whose output goes past the caches: each is written while the next one is summed.
#pragma once

// A row whose output is written while the next one is summed; none if its lane is -1.
template <class Op>
struct RowInTurn {
  using T = typename Op::Value;
  const Op& op;
  const RowGroup<T>& rows;
  ptrdiff_t lane, written = 0;

  CROSSENT_INLINE bool active() const { return kStreams && Op::kOutput && lane >= 0; }
  // As much as is summed; parts end where a cache line does.
  CROSSENT_INLINE void operator()(ptrdiff_t summed) {
    if (!active()) return;
    const uintptr_t line = (uintptr_t)rows.output(lane).data;
    write_up_to(summed + (ptrdiff_t)(-line % kVectorBytes / sizeof(T)));
  }
  CROSSENT_INLINE void write_rest() {
    if (active()) write_up_to(rows.run.classes);
  }
  CROSSENT_INLINE void write_up_to(ptrdiff_t end) {
    const Part part{written, between(written, end, rows.run.classes)};
    if constexpr (Op::kOutput) op.row_output(rows, lane, part);
    written = part.last;
  }
};

// Whether rows are long and written past the caches, as they are. Summing them waits for the processor and writing them for
// memory, so that doing both at once takes little longer than where all is in a cache on Zen 4 (1024 x 50257: log_softmax 0.43
// -> 0.37 ns per element, softmax 0.44 -> 0.39; in a cache 0.35 and 0.36). Cores that wait for more lines at a time lose a
// little (Granite Rapids, softmax 0.45 -> 0.47).
template <class Op>
CROSSENT_INLINE bool goes_in_turns(const Run& run) {
  if (!kStreams || !Op::kInTurns || !Op::kOutput) return false;
  const auto converts = [](const Operand& a)
                            CROSSENT_LAMBDA { return element_size(a.type) != (ptrdiff_t)sizeof(typename Op::Value); };
  if (converts(run.input) || converts(run.output) || (Op::kInputs == 2 && converts(run.second))) return false;
  return run.stream && run.fetches_far && run.classes > kBlock<typename Op::Value>;
}

// The rows of a run from `begin` on, each written while the next one is summed.
template <class Op>
CROSSENT_INLINE void process_rows_in_turns(Op& op, const Run& run, ptrdiff_t begin) {
  using T = typename Op::Value;
  T* buffer = (T*)run.scratch;
  for (ptrdiff_t first = begin; first < run.rows; first += kMostInTurns) {
    const ptrdiff_t count = between(0, run.rows - first, kMostInTurns);
    const RowGroup<T> rows{run, first, count, buffer, buffer + 3 * kBlock<T>, false, true};
    op.begin(first, count);
    ptrdiff_t before = -1;
    for (ptrdiff_t lane = 0; lane < count; ++lane) {
      RowInTurn<Op> previous{op, rows, before};
      before = op.live(lane) ? lane : -1;
      if (before == lane) {
        op.row_step(rows, lane, previous);
      } else {
        __builtin_memset(rows.output(lane).data, 0, run.classes * sizeof(T));
      }
      previous.write_rest();
      op.finish(count, count);
    }
    RowInTurn<Op>{op, rows, before}.write_rest();
  }
}
